"""One call for every kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from penchant.core import CountedModel, Model, Run, Snapshot, Vocabulary
from penchant.core.errors import InputError
from penchant.models import Sequence, model_kinds


def fit_model(kind: str, snapshot: Snapshot, config: msgspec.Struct | Mapping[str, Any], run: Run) -> Model:
    """Fit a model of a registered kind: counted ones count, neural ones go through the one loop.

    Args:
        kind: Name of the plug-in.
        snapshot: What to learn from.
        config: Its configuration, or the fields of it that differ from the defaults.
        run: Seed, device, checkpoints, validation and progress.

    Raises:
        InputError: The kind or a field of its configuration does not exist.
        ModelError: The snapshot holds nothing this kind can learn from.
        MissingExtra: An optional dependency of this kind is not installed.
    """
    kinds = model_kinds()
    if kind not in kinds:
        raise InputError("no such model kind", value=kind, hint=f"kinds: {', '.join(kinds)}")
    try:  # a struct made in Python has not been checked yet
        config = msgspec.convert(msgspec.to_builtins(config), kinds[kind].Config)
    except msgspec.ValidationError as error:
        raise InputError(f"settings of {kind}: {error}", hint="see the reference page on settings") from None
    if kind == "sequence":
        from penchant.training._sequence import fit_sequence

        return fit_sequence(snapshot, config, run)  # type: ignore[arg-type]
    counted: type[CountedModel] = kinds[kind]  # type: ignore[assignment]
    return counted.fit(snapshot, config, run)


def update_model(
    kind: str, model: Model, items: Vocabulary, snapshot: Snapshot, since: int, run: Run
) -> Model:
    """Go on from a fitted model: counted ones count again, the sequence model learns from what is new.

    Args:
        kind: Name of the plug-in.
        model: What was fitted before.
        items: The vocabulary it is numbered by.
        snapshot: Everything known now.
        since: Microseconds: where a network stopped learning.
        run: Seed, device and progress.

    Returns:
        A model in the numbers of the snapshot.

    Raises:
        ModelError: The snapshot holds nothing to learn from since then.
        MissingExtra: An optional dependency of this kind is not installed.
    """
    if isinstance(model, Sequence):
        from penchant.training._sequence import update_sequence

        return update_sequence(model, items, snapshot, since, run)
    return fit_model(kind, snapshot, model.config, run)
