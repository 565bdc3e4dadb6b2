"""What items say and show: the catalogue's texts and pictures, encoded once, beside the events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import Encoder, Modality, Model, Progress, Snapshot, Vocabulary
from penchant.data import ContentStore, Encoded, is_english, item_images, item_texts, joined_content
from penchant.engine._promotion import read_promoted
from penchant.models import Sequence as SequenceModel
from penchant.models import encoder_installed, load_encoder
from penchant.training import Loaded, read_artifact

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

CONTENT = "content"  # the fact of an artifact: the encoders whose vectors it learned from
_ENGLISH, _OTHERS, _PICTURES = "minilm", "e5", "efficientnet_lite0"
_EXAMPLES = 3  # broken pictures that a note names


@dataclass(eq=False)
class Contents:
    """The vectors of a catalogue's items."""

    vectors: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)  # modality/encoder id -> (N, D)
    notes: list[str] = field(default_factory=list)


def read_content(shop: Shop, catalog: pa.Table, progress: Progress) -> Contents:
    """Encode what is new in the catalogue, with the encoders that the settings and its language choose.

    Raises:
        InputError: The settings name an encoder that does not exist.
        MissingExtra: They name one that is not installed.
    """
    found = Contents()
    language = _ENGLISH if is_english(catalog) else _OTHERS
    asked: tuple[tuple[Modality, str, str], ...] = (
        ("text", shop.config.content.text, language),
        ("image", shop.config.content.image, _PICTURES),
    )
    for modality, name, usual in asked:
        if name == "off" or (name == "auto" and not encoder_installed(usual)):
            continue
        contents = item_contents(shop, catalog, modality)
        if name == "auto" and not any(contents):
            continue
        encoder = load_encoder(usual if name == "auto" else name, modality)
        key = f"{modality}/{encoder.id}"
        encoded = ContentStore(shop.content / key).encode(encoder, contents, progress)
        found.vectors[key] = encoded.vector_ND
        found.notes += _notes(encoder, encoded, catalog, contents)
    return found


def item_contents(shop: Shop, catalog: pa.Table, modality: Modality) -> Sequence[str | Path | None]:
    """What an encoder of a modality reads of each item."""
    return item_texts(catalog) if modality == "text" else item_images(catalog, shop.path)


def _notes(
    encoder: Encoder, encoded: Encoded, catalog: pa.Table, contents: Sequence[str | Path | None]
) -> list[str]:
    """What was done, for the answer; broken pictures by item and file."""
    notes = []
    if encoded.new:
        notes.append(f"{encoded.new:,} {encoder.modality}s encoded with {encoder.name}")
    if encoded.unread:
        some = [f"{catalog['id'][n]} ({contents[n]})" for n in encoded.unread[:_EXAMPLES]]
        more = ", ..." if len(encoded.unread) > _EXAMPLES else ""
        notes.append(
            f"{len(encoded.unread):,} {encoder.modality}s could not be read: {', '.join(some)}{more}"
        )
    return notes


def with_content(shop: Shop, snapshot: Snapshot, progress: Progress) -> Snapshot:
    """The snapshot with the vectors of its catalogue; its fingerprint names the encoders."""
    found = read_content(shop, snapshot.catalog.table, progress)
    if not found.vectors:
        return snapshot
    return replace(
        snapshot,
        catalog=replace(snapshot.catalog, vectors=found.vectors),
        fingerprint="+".join([snapshot.fingerprint, *found.vectors]),
    )


def with_newcomers(shop: Shop, loaded: Loaded, catalog: pa.Table) -> tuple[Model, Vocabulary]:
    """The model and its items, with those that entered the catalogue after it learned, where their content is known.

    Nothing is encoded here: a server needs no encoder for it.
    """
    model, items = loaded.model, loaded.items
    encoders: list[str] = loaded.artifact.facts.get(CONTENT, [])
    if not encoders or not isinstance(model, SequenceModel) or not (model.content and model.config.lending):
        return model, items
    ids = catalog["id"].combine_chunks()
    new = ids.filter(pc.invert(pc.is_in(ids, value_set=items.array)))
    if not len(new):
        return model, items
    wider = Vocabulary(pa.concat_arrays([items.array, new]))
    table = catalog.take(pc.index_in(wider.array, value_set=ids))
    parts = [
        ContentStore(shop.content / key).find(item_contents(shop, table, _modality(key))) for key in encoders
    ]
    content_NC = joined_content([np.r_[np.zeros((1, part.shape[1]), np.float32), part] for part in parts])
    if not content_NC[len(items) + 1 :].any():
        return model, items
    return model.extended(content_NC), wider


def _modality(key: str) -> Modality:
    return "image" if key.startswith("image/") else "text"


def encode_newcomers(shop: Shop, progress: Progress) -> list[str]:
    """Encode what is new in the catalogue if the model that serves can use it; says what was done."""
    artifact = read_promoted(shop.artifacts, read_artifact)  # a damaged one: `train` will encode it
    if artifact is None or not artifact.facts.get(CONTENT):
        return []
    return read_content(shop, shop.store.catalog(), progress).notes
