"""The canary: what a model must do on a few people before anybody is served by it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from penchant.core import Bools, EventKind, Floats, History, Model, Searcher, Vocabulary
from penchant.core.errors import ArtifactError
from penchant.data import live_sequences, sequence_batch

_ASKED = 10  # items of each canary answer
_EVENTS = (0, 1, 5, 50)  # lengths of the made-up histories


def check_model(
    model: Model,
    items: Vocabulary,
    artifact_id: str,
    people: Sequence[History] = (),
    offered_N: Bools | None = None,
) -> None:
    """Ask a model for scores of a few people: made-up ones and, where given, real ones.

    Args:
        model: The model.
        items: What it ranks.
        artifact_id: Named in the error.
        people: Histories of people who were served lately.
        offered_N: Which items may be shown; None for all.

    Raises:
        ArtifactError: The scores are not one for each item, one is not a number, or nothing can be shown.
    """
    for history in (*made_up(items), *people):
        sequences = live_sequences([history], items, np.zeros((1, 0), np.float32))
        batch = sequence_batch(sequences, np.array([0]), max(_EVENTS))
        score_BN = model.scores(batch)
        if score_BN.shape != (1, len(items) + 1):
            raise _unusable(artifact_id, f"it gives {score_BN.shape[-1]} scores for {len(items)} items")
        _check_scores(score_BN[0, 1:], None if offered_N is None else offered_N[1:], artifact_id)
        if isinstance(model, Searcher):
            allowed_N = np.r_[False, np.ones(len(items), np.bool_)]
            _check_scores(model.best(batch, allowed_N, min(_ASKED, len(items)))[1], None, artifact_id)


def _check_scores(score_N: Floats, offered_N: Bools | None, artifact_id: str) -> None:
    if np.isnan(score_N).any() or np.isposinf(score_N).any():
        raise _unusable(artifact_id, "a score is not a number")
    usable_N = np.isfinite(score_N)
    if not usable_N.any() or (offered_N is not None and offered_N.any() and not (usable_N & offered_N).any()):
        raise _unusable(artifact_id, "it ranks nothing that can be shown")


def made_up(items: Vocabulary) -> list[History]:
    """People with histories of several lengths, the same for the same items."""
    rng = np.random.default_rng(0)
    found = []
    for count in _EVENTS:
        numbers = rng.integers(1, len(items) + 1, count) if len(items) else np.zeros(0, np.int64)
        found.append(
            History(
                f"canary-{count}",
                np.arange(count, dtype=np.int64) * 60_000_000 + 1_700_000_000_000_000,
                np.full(count, EventKind.VIEW.code, np.uint8),
                [items.id(int(number)) for number in numbers],
                np.full(count, np.nan, np.float32),
                [f"canary-{n}" for n in range(count)],
            )
        )
    return found


def _unusable(artifact_id: str, why: str) -> ArtifactError:
    return ArtifactError(
        f"the model gives no usable scores: {why}",
        value=artifact_id,
        hint="keep the current model and train again",
    )
