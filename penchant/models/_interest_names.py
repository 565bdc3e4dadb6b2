"""Names of interests: the catalogue's labels themselves, or the words that tell a cluster from the others."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from penchant.core import Floats, Ints, Snapshot
from penchant.models._counts import target_counts

_TELLING = 0.6  # share of what people turn to that labels must say something of
_WORDS = 3  # in a name
_STRUCTURE = 3.0  # a label or category counts for so many words of titles
_LONGEST = 12  # words read of a title


@dataclass(frozen=True, eq=False)
class LabelMembers:
    """Labels as interests. ``telling``: few enough, and they say something of most of what people turn to."""

    names: list[str]
    member_NL: npt.NDArray[np.int32]
    telling: bool


def label_members(snapshot: Snapshot, most: int, fewest: int) -> LabelMembers | None:
    """The catalogue's labels that several items bear, as interests; None where there are not two."""
    table = snapshot.catalog.table
    labels = table["labels"].combine_chunks()
    number = snapshot.items.numbers(table["id"].to_pylist())[np.asarray(pc.list_parent_indices(labels))]
    text = labels.flatten().to_pylist()
    pairs = sorted({(int(n), t.strip()) for n, t in zip(number, text, strict=True) if n and t and t.strip()})
    count = Counter(label for _, label in pairs)
    names = sorted(label for label, items in count.items() if items >= fewest)
    if len(names) < 2:
        return None
    place = {name: at for at, name in enumerate(names, 1)}
    mine: dict[int, list[int]] = {}
    for item, label in pairs:
        if label in place:
            mine.setdefault(item, []).append(place[label])
    member_NL = np.zeros((snapshot.num_items + 1, max(map(len, mine.values()))), np.int32)
    for item, found in mine.items():
        member_NL[item, : len(found)] = found
    turned_N = target_counts(snapshot)
    said = float(turned_N[member_NL[:, 0] > 0].sum()) / max(float(turned_N.sum()), 1.0)
    return LabelMembers(names, member_NL, 4 <= len(names) <= most and said >= _TELLING)


def cluster_names(snapshot: Snapshot, group_N: Ints) -> list[str]:
    """Name each group, 1 to G, by the three terms that tell it from the others.

    Class-based TF-IDF (Grootendorst, "BERTopic", 2022): how often a term stands in the group, times
    ``log(1 + average terms a group / how often it stands anywhere)``. Terms are labels, steps of categories and words
    of titles; a group without any is named by its most popular item.
    """
    table = snapshot.catalog.table
    number = snapshot.items.numbers(table["id"].to_pylist())
    count: list[Counter[str]] = [Counter() for _ in range(int(group_N.max(initial=0)))]
    rows = zip(
        number.tolist(),
        table["title"].to_pylist(),
        table["category"].to_pylist(),
        table["labels"].to_pylist(),
        strict=True,
    )
    for item, title, category, labels in rows:
        if item and group_N[item]:
            for term, weight in _terms(title, category, labels):
                count[int(group_N[item]) - 1][term] += weight  # type: ignore[assignment]
    everywhere: Counter[str] = Counter()
    for mine in count:
        everywhere.update(mine)
    average = sum(everywhere.values()) / max(len(count), 1)
    size_G = np.bincount(group_N)[1:]
    turned_N = target_counts(snapshot)
    # What stands in most groups tells none of them apart, and what few items of a group bear does not name it.
    borne = [{t for t, times in mine.items() if times >= 0.05 * size_G[g]} for g, mine in enumerate(count)]
    spread = Counter(term for terms in borne for term in terms)
    names: list[str] = []
    for group, (mine, terms) in enumerate(zip(count, borne, strict=True), 1):
        worth = {
            term: mine[term] * float(np.log1p(average / everywhere[term]))
            for term in terms
            if spread[term] <= max(len(count) // 2, 1)
        }
        best = _apart(sorted(worth, key=lambda term: (-worth[term], term)))
        inside = np.flatnonzero(group_N == group)
        name = ", ".join(best) or snapshot.items.id(int(inside[turned_N[inside].argmax()]))
        names.append(name if name not in names else f"{name} ({group})")
    return names


def _terms(title: str | None, category: str | None, labels: list[str] | None) -> Iterable[tuple[str, float]]:
    for label in labels or ():
        yield label.strip().lower(), _STRUCTURE
    for step in (category or "").split(">"):
        if step.strip():
            yield step.strip().lower(), _STRUCTURE
    for word in set(re.findall(r"[^\W\d_]{3,}", (title or "").lower())[:_LONGEST]):
        yield word, 1.0


def _apart(terms: list[str]) -> list[str]:
    """The first three that do not contain one another."""
    found: list[str] = []
    for term in terms:
        if len(found) == _WORDS:
            break
        if term and not any(term in other or other in term for other in found):
            found.append(term)
    return found


def spelled(names: Sequence[str]) -> Floats:
    """How names are written, as vectors (n, F): pieces of three letters, rare ones weighing more (TF-IDF).

    Names that share words, or parts of words, are near each other. It needs no encoder and knows no meaning.

    Example:
        >>> a, b, c = spelled(["green tea", "teapots", "soap"])
        >>> bool(a @ b > 0), float(a @ c)
        (True, 0.0)
    """
    pieces = [Counter(_pieces(name)) for name in names]
    spread = Counter(piece for mine in pieces for piece in mine)
    place = {piece: at for at, piece in enumerate(sorted(spread))}
    vec_NF = np.zeros((len(names), len(place)))
    for row, mine in enumerate(pieces):
        for piece, times in mine.items():
            vec_NF[row, place[piece]] = times * np.log((1 + len(names)) / spread[piece])
    return np.asarray(vec_NF)


def _pieces(name: str) -> Iterable[str]:
    for word in re.findall(r"\w+", unicodedata.normalize("NFKC", name).casefold()):
        yield from (f" {word} "[at : at + 3] for at in range(len(word)))
