"""What was learned, at rest: safetensors and JSON under the hash of their content, never pickle.

``artifacts/<id>/`` holds ``manifest.json`` (core ``Artifact``), ``tensors.safetensors``, ``items.json`` and a
file for every byte array a model keeps (an ONNX encoder). The id is a hash of the manifest's other fields and
of every file, so that a changed byte is noticed and the same content has the same id.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from penchant.core import Artifact, Estimate, Model, Vocabulary, leads
from penchant.core.errors import ArtifactError, InputError
from penchant.models import model_kinds

MANIFEST, TENSORS, ITEMS = "manifest.json", "tensors.safetensors", "items.json"
FILE_PREFIX = "file:"  # an array of this name is a file of its own: "file:encoder.onnx"
_HINT = "promote another model or train again"


class Storable(Protocol):
    """What an artifact is made from: a ``Model``, or anything else with a configuration and arrays."""

    @property
    def config(self) -> Any:
        """Its configuration, a ``msgspec.Struct``."""
        ...

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All that was learned."""
        ...


@dataclass(frozen=True, eq=False)
class Loaded:
    """An artifact, ready to use."""

    artifact: Artifact
    model: Model
    items: Vocabulary


def save_artifact(
    root: Path,
    model: Storable,
    *,
    kind: str,
    as_of: int,
    items: Vocabulary,
    metrics: Mapping[str, Estimate] | None = None,
    facts: Mapping[str, Any] | None = None,
    parents: Sequence[str] = (),
    fingerprint: str = "",
) -> Artifact:
    """Write a model as an artifact; it appears whole or not at all. Of several processes the first one writes.

    Args:
        root: The folder of artifacts.
        model: What was fitted.
        kind: The name of its model plug-in.
        as_of: Microseconds: it learned from events before this.
        items: The vocabulary its arrays are numbered by.
        metrics: What was measured of it.
        facts: What serving must know.
        parents: Ids of artifacts it was made from.
        fingerprint: Of the snapshot it learned from.

    Raises:
        ArtifactError: A learned array holds NaN.
    """
    arrays, files = _split(model.arrays())
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and np.isnan(array).any():
            raise ArtifactError("the model holds values that are no numbers", value=name, hint="train again")
    from safetensors.numpy import save

    files[TENSORS] = save(arrays)
    files[ITEMS] = msgspec.json.encode(items.ids)
    artifact = Artifact(
        id="",
        kind=kind,
        config=msgspec.to_builtins(model.config),
        as_of=as_of,
        parents=list(parents),
        metrics=dict(metrics or {}),
        facts=dict(facts or {}),
        files={name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
        code_version="1",
        fingerprint=fingerprint,
    )
    artifact = msgspec.structs.replace(artifact, id=_hash(artifact))
    files[MANIFEST] = msgspec.json.format(msgspec.json.encode(artifact), indent=1)
    if leads():
        _publish(root, artifact.id, files)
    return artifact


def _split(
    arrays: Mapping[str, np.ndarray[Any, Any]],
) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, bytes]]:
    """Tell tensors from files that travel as byte arrays."""
    tensors = {n: np.ascontiguousarray(a) for n, a in arrays.items() if not n.startswith(FILE_PREFIX)}
    files = {n.removeprefix(FILE_PREFIX): a.tobytes() for n, a in arrays.items() if n.startswith(FILE_PREFIX)}
    return tensors, files


def _hash(artifact: Artifact) -> str:
    blank = msgspec.structs.replace(artifact, id="")
    return hashlib.sha256(msgspec.json.encode(blank, order="sorted")).hexdigest()[:32]


def _publish(root: Path, artifact_id: str, files: Mapping[str, bytes]) -> None:
    """Write into a scratch folder, sync, and rename into place."""
    place = root / artifact_id
    if (place / MANIFEST).exists():
        return  # same id, same content
    root.mkdir(parents=True, exist_ok=True)
    scratch = root / f".{artifact_id}.{secrets.token_hex(4)}"
    scratch.mkdir()
    try:
        for name, data in files.items():
            with open(scratch / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        shutil.rmtree(place, ignore_errors=True)  # a half-deleted one
        os.replace(scratch, place)
        _sync_folder(root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_artifact(root: Path, artifact_id: str) -> Artifact:
    """Read and check a manifest, without the files it lists.

    Raises:
        ArtifactError: There is none, or it was changed.
    """
    if not artifact_id.isalnum():
        raise ArtifactError("this is no artifact id", value=artifact_id, hint="see `penchant status`")
    try:
        data = (root / artifact_id / MANIFEST).read_bytes()
        artifact = msgspec.json.decode(data, type=Artifact)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
        raise ArtifactError("the manifest is missing or damaged", value=artifact_id, hint=_HINT) from None
    if artifact.id != artifact_id or _hash(artifact) != artifact_id:
        raise ArtifactError("the manifest does not match its hash", value=artifact_id, hint=_HINT)
    return artifact


def load_artifact(root: Path, artifact_id: str) -> Loaded:
    """Load a model, every file checked against its hash. Never imports torch.

    Raises:
        ArtifactError: A file is missing, changed or not what it says it is, or the kind is not installed.
    """
    artifact = read_artifact(root, artifact_id)
    files = {name: _read(root / artifact_id / name, digest) for name, digest in artifact.files.items()}
    kinds = model_kinds()
    if artifact.kind not in kinds:
        raise ArtifactError(
            "no installed model kind can read this", value=artifact.kind, hint="install its plug-in"
        )
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: dict[str, np.ndarray[Any, Any]] = load(files[TENSORS])
        items = Vocabulary(msgspec.json.decode(files[ITEMS], type=list[str]))
        for name, data in files.items():
            if name not in (TENSORS, ITEMS):
                arrays[FILE_PREFIX + name] = np.frombuffer(data, np.uint8)
        config = msgspec.convert(artifact.config, kinds[artifact.kind].Config)
        model = kinds[artifact.kind].restore(config, arrays)
    except ArtifactError:
        raise
    except (KeyError, ValueError, TypeError, IndexError, SafetensorError, InputError, RuntimeError) as error:
        raise ArtifactError(
            f"the files are not a usable {artifact.kind} model: {type(error).__name__}",
            value=artifact_id,
            hint=_HINT,
        ) from None
    return Loaded(artifact, model, items)


def _read(path: Path, digest: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError:
        raise ArtifactError("a file of the model is missing", value=path.name, hint=_HINT) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise ArtifactError("a file of the model does not match its hash", value=path.name, hint=_HINT)
    return data


def list_artifacts(root: Path) -> list[Artifact]:
    """All artifacts whose manifest is whole, newest file first."""
    found: list[tuple[float, Artifact]] = []
    for place in root.iterdir() if root.is_dir() else []:
        if not place.is_dir() or place.name.startswith("."):
            continue
        try:
            found.append(((place / MANIFEST).stat().st_mtime, read_artifact(root, place.name)))
        except (ArtifactError, OSError):
            continue
    return [artifact for _, artifact in sorted(found, key=lambda pair: (-pair[0], pair[1].id))]
