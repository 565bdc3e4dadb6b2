"""What a catalogue shows and says of its items, as vectors: each content is encoded once and kept on disk.

The store of vectors is a folder in the shop: ``content/<modality>/<encoder id>/*.safetensors``, each file with the
hashes of some contents (n, 16) and their vectors (n, D) in half precision. Files are only added. It holds nothing of
people, so an erasure leaves it alone, and it can be deleted at will.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors import SafetensorError
from safetensors.numpy import load, save

from penchant.core import Encoder, Progress, Snapshot, no_progress
from penchant.store import atomic_write

_MOST_CHARACTERS = 1000  # of a text: what encoders read of it
_AT_ONCE = 256  # contents encoded between two reports of progress
_MOST_BYTES = 30_000_000  # of a picture
_DIGEST = 16  # bytes of a content's hash
_ENGLISH = re.compile(r"en\b|en[-_]|english", re.IGNORECASE)
_MOSTLY = 0.9
Content = str | Path  # a text, or where a picture lies


def item_texts(catalog: pa.Table) -> list[str | None]:
    """One text an item: title, brand, category, colour and description; None without title and description.

    Args:
        catalog: CATALOG_SCHEMA.

    Example:
        >>> from penchant.testing import toy_snapshot
        >>> toy = toy_snapshot([("u", "rye")], categories={"rye": "Bakery > Bread"})
        >>> item_texts(toy.catalog.table)
        ['Item rye. Bread. Bakery']
    """
    columns = [catalog[name].to_pylist() for name in ("title", "brand", "category", "color", "description")]
    return [_text(*row) for row in zip(*columns, strict=True)]


def _text(
    title: str | None, brand: str | None, category: str | None, color: str | None, description: str | None
) -> str | None:
    if not (title or description):
        return None
    steps = reversed(category.split(" > ")) if category else ()  # the narrowest step says most
    parts = [part for part in (title, brand, *steps, color, description) if part]
    return ". ".join(dict.fromkeys(parts))[:_MOST_CHARACTERS]


def is_english(catalog: pa.Table) -> bool:
    """Whether a catalogue's texts are English: by its ``language`` column, else by its letters.

    Nine in ten items have to be. Without a language, a text counts as English when nine in ten of its letters are
    without accents: other languages in such letters should be declared.
    """
    told = [language for language in catalog["language"].to_pylist() if language]
    if told:
        return sum(_ENGLISH.match(language) is not None for language in told) >= _MOSTLY * len(told)
    texts = [text for text in catalog["title"].slice(0, 10_000).to_pylist() if text]
    return sum(map(_plain, texts)) >= _MOSTLY * len(texts)


def _plain(text: str) -> bool:
    letters = [letter for letter in text if letter.isalpha()]
    return sum(map(str.isascii, letters)) >= _MOSTLY * len(letters)


def item_images(catalog: pa.Table, folder: Path) -> list[Path | None]:
    """The local picture of each item: ``image_link`` as a path or a ``file:`` URL; None for none and for the web.

    Args:
        catalog: CATALOG_SCHEMA.
        folder: What relative paths start from.
    """
    return [_local(link, folder) for link in catalog["image_link"].to_pylist()]


def _local(link: str | None, folder: Path) -> Path | None:
    if not link:
        return None
    if link.lower().startswith("file:"):
        return Path(unquote(urlsplit(link).path))
    return None if re.match(r"[a-z][a-z0-9+.-]+:", link, re.IGNORECASE) else folder / link


@dataclass(frozen=True, eq=False)
class Encoded:
    """The vectors of some contents, and how they were come by."""

    vector_ND: npt.NDArray[np.float32]  # zeros where there is no content
    new: int  # contents encoded now; the others were known
    unread: list[int]  # places of contents that the encoder could not read


class ContentStore:
    """The vectors of everything that one encoder has read for a shop.

    Args:
        folder: Of the vectors of this encoder; made when needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, contents: Sequence[Content | None]) -> npt.NDArray[np.float32]:
        """The vectors of some contents as far as they are known, (n, D); zeros for others. Needs no encoder."""
        key_N = [_key(content) for content in contents]
        return _rows(key_N, self._read(set(key_N)))

    def encode(
        self,
        encoder: Encoder,
        contents: Sequence[Content | None],
        progress: Progress = no_progress,
    ) -> Encoded:
        """The vectors of some contents, (n, D): known ones are looked up, new ones are encoded and kept.

        Args:
            encoder: The one whose vectors this store keeps.
            contents: Texts, or where the pictures lie; None for an item that has none.
            progress: Called after every few hundred new contents, which are kept if the work is broken off.

        Raises:
            StorageError: The disk refused.
        """
        key_N = [_key(content) for content in contents]
        known = self._read(set(key_N))
        places = list({key: n for n, key in enumerate(key_N) if key and key not in known}.values())
        for start in range(0, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            half_ND = encoder.encode([_content(contents[n]) for n in some]).astype(np.float16)
            fresh = {key_N[n]: vector for n, vector in zip(some, half_ND, strict=True)}
            self._keep(fresh)
            known |= fresh
            progress(f"encoding {encoder.modality}s", start + len(some), len(places), {})
        vector_ND = _rows(key_N, known, encoder.width)
        unread = [n for n, key in enumerate(key_N) if key and not vector_ND[n].any()]
        return Encoded(vector_ND, len(places), unread)

    def _read(self, wanted: set[bytes]) -> dict[bytes, npt.NDArray[np.float16]]:
        """The vectors that are kept of some contents; a damaged file counts as not there."""
        found = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                part = load(path.read_bytes())
                key_NB, vector_ND = part["key_NB"], part["vector_ND"]
            except (OSError, SafetensorError, KeyError):
                continue
            for row, key in enumerate(map(bytes, key_NB)):
                if key in wanted:
                    found[key] = vector_ND[row]
        return found

    def _keep(self, fresh: Mapping[bytes, npt.NDArray[np.float16]]) -> None:
        key_NB = np.frombuffer(b"".join(fresh), np.uint8).reshape(-1, _DIGEST)
        data = save({"key_NB": key_NB, "vector_ND": np.stack(list(fresh.values()))})
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self.folder / f"{hashlib.sha256(data).hexdigest()[:16]}.safetensors", data)


def _content(content: Content | None) -> str | bytes:
    """What an encoder reads: a text, or the bytes of a picture; none where the file is missing or far too large."""
    if not isinstance(content, Path):
        return content or ""
    try:
        regular = content.is_file()  # a device may have no end
        return content.read_bytes() if regular and content.stat().st_size <= _MOST_BYTES else b""
    except (OSError, ValueError):
        return b""


def _key(content: Content | None) -> bytes:
    """The hash of a content; nothing for nothing."""
    if content is None:
        return b""
    read = _content(content)
    data = read.encode("utf-8", "replace") if isinstance(read, str) else read
    return hashlib.sha256(data).digest()[:_DIGEST]


def _rows(
    key_N: Sequence[bytes], known: Mapping[bytes, npt.NDArray[np.float16]], width: int | None = None
) -> npt.NDArray[np.float32]:
    """Vectors in the order of some keys; zeros where there is none."""
    if width is None:
        width = len(next(iter(known.values()))) if known else 0
    out_ND = np.zeros((len(key_N), width), np.float32)
    for n, key in enumerate(key_N):
        if key in known:
            out_ND[n] = known[key]
    return out_ND


def item_content(snapshot: Snapshot) -> npt.NDArray[np.float32] | None:
    """What the items of a snapshot say and show, by item number: (N + 1, C); None where nothing was encoded.

    Zeros where nothing is known of an item. See ``joined_content`` for what the numbers are.
    """
    if not snapshot.catalog.vectors:
        return None
    row_N = snapshot.items.numbers(snapshot.catalog.table["id"].to_pylist())
    parts = []
    for vector_ND in snapshot.catalog.vectors.values():
        part = np.zeros((snapshot.num_items + 1, vector_ND.shape[1]), np.float32)
        part[row_N] = vector_ND
        part[0] = 0
        parts.append(part)
    return joined_content(parts)


def joined_content(parts: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Vectors of several encoders as one, (N + 1, C): each centred and scaled to length 1, then all side by side.

    Encoders put their vectors into a cone of their own; without its axis, cosines spread out and can be compared.

    Args:
        parts: (N + 1, D) each, row 0 unused; zeros where there is nothing to read.
    """
    return _unit(np.concatenate([_unit(_centred(part)) for part in parts], axis=1))


def _centred(part_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    known_N = np.asarray(part_ND.any(axis=1))
    if not known_N.any():
        return part_ND
    centred_ND: npt.NDArray[np.float32] = (part_ND - part_ND[known_N].mean(axis=0)) * known_N[:, None]
    return centred_ND


def _unit(vector_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    length_N1 = np.linalg.norm(vector_ND, axis=1, keepdims=True)
    unit_ND: npt.NDArray[np.float32] = (vector_ND / np.maximum(length_N1, 1e-12)).astype(np.float32)
    return unit_ND
