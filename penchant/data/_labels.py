"""What the catalogue says of an item, as numbers: its brand, the steps of its category, its labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import Snapshot
from penchant.data._features import item_categories

_FEWEST = 2  # items that must share a label: one alone tells nothing about another


def item_labels(snapshot: Snapshot, limit: int = 16) -> npt.NDArray[np.int64]:
    """Number the labels of every item: (N + 1, L) int64, 0 = none, L at most ``limit``.

    A label is a brand, a category path cut at any step, or one of the catalogue's ``labels``. Left out are those of
    a single item and those of more than half of all items. Of an item with more labels than the limit the
    rarest stay, which say most.

    Args:
        snapshot: Its catalogue and vocabulary are read.
        limit: The most labels of one item.

    Example:
        >>> from penchant.testing import toy_snapshot
        >>> paths = {"ale": "Drinks > Beer", "rum": "Drinks", "soap": "Bath", "towel": "Bath", "pen": "Office"}
        >>> item_labels(toy_snapshot([("u", "ale")], categories=paths)).tolist()
        [[0], [2], [0], [2], [1], [1]]
    """
    count = snapshot.num_items
    return numbered_labels(*_pairs(snapshot), count, limit=limit, most=max(_FEWEST, count // 2))


def numbered_labels(
    item_P: npt.NDArray[np.int64],
    text_P: npt.NDArray[np.object_],
    num_items: int,
    *,
    limit: int,
    most: int,
) -> npt.NDArray[np.int64]:
    """Number the labels of every item: (N + 1, L) int64, 0 = none, L at most ``limit``, the rarest first.

    Args:
        item_P: Item numbers.
        text_P: A label of each.
        num_items: N.
        limit: The most labels of one item.
        most: Items that may share a label; one of more, or of a single item, is left out.
    """
    rows = num_items + 1
    if not len(item_P):
        return np.zeros((rows, 0), np.int64)
    names, code_P = np.unique(text_P, return_inverse=True)
    pair_P = np.unique(code_P.astype(np.int64) * rows + item_P)
    code_P, item_P = pair_P // rows, pair_P % rows
    count_K = np.bincount(code_P, minlength=len(names))
    useful_K = (count_K >= _FEWEST) & (count_K <= most)
    number_K = np.cumsum(useful_K) * useful_K
    code_P, item_P = code_P[useful_K[code_P]], item_P[useful_K[code_P]]
    order = np.lexsort((code_P, count_K[code_P], item_P))
    code_P, item_P = code_P[order], item_P[order]
    place_P = np.arange(len(item_P)) - np.searchsorted(item_P, item_P)
    keep = place_P < limit
    label_NL = np.zeros((rows, int(place_P[keep].max(initial=-1)) + 1), np.int64)
    label_NL[item_P[keep], place_P[keep]] = number_K[code_P[keep]]
    return label_NL


def _pairs(snapshot: Snapshot) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.object_]]:
    """Item numbers and label texts, side by side; the texts carry what they are, so that no two mean the same."""
    table = snapshot.catalog.table
    number = snapshot.items.numbers(table["id"].to_pylist()).astype(np.int64)
    items, texts = [], []

    def add(where: npt.NDArray[np.int64], what: pa.Array, prefix: str) -> None:
        known = np.asarray(pc.is_valid(what))
        items.append(where[known])
        texts.append(np.array([prefix + text for text in what.drop_null().to_pylist()], object))

    add(number, table["brand"].combine_chunks(), "brand ")
    labels = table["labels"].combine_chunks()
    add(number[np.asarray(pc.list_parent_indices(labels))], labels.flatten(), "label ")
    steps = pc.max(pc.count_substring(table["category"], ">")).as_py()
    for level in range(1, 1 if steps is None else steps + 2):
        add(
            np.arange(1, snapshot.num_items + 1),
            pa.array(item_categories(snapshot, level), pa.string()),
            "category ",
        )
    item_P, text_P = np.concatenate(items), np.concatenate(texts)
    listed_P = item_P > 0
    return item_P[listed_P], text_P[listed_P]
