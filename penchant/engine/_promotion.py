"""Which model serves: one small file, replaced atomically, so that a crash leaves the old or the new."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from penchant.core import ASKED_CODES, Noun, SeenRule, Target
from penchant.core.errors import ArtifactError
from penchant.models import RankChance
from penchant.store import atomic_write

if TYPE_CHECKING:
    from penchant.evaluation import Calibration

_NAME = "promoted.json"
# Facts of an artifact, each by what is asked for: what makes probabilities of its scores, how likely what stands at a
# rank is to be next, and whether answers may repeat what the person had.
CALIBRATION, RANK_CHANCE, SEEN_FOR = "calibration", "rank_chance", "seen_for"

Read = TypeVar("Read")


class Failed(Noun, frozen=True):
    """A model that was to serve, and why it was taken back. Its files are kept."""

    id: str
    why: str


class Pointer(Noun, frozen=True):
    """The serving model, those before it (newest first), what to fall back on, and the tags model."""

    promoted: str | None = None
    previous: tuple[str, ...] = ()
    fallback: tuple[str, ...] = ()
    companions: str | None = None  # the model that answers `similar` where the promoted one cannot
    tags: str | None = None
    failed: tuple[Failed, ...] = ()  # newest first
    interests: str | None = None  # the map of interests


def read_pointer(artifacts: Path) -> Pointer | None:
    """The pointer; None when nothing was ever promoted. A damaged one counts as none, and says so in status."""
    try:
        return msgspec.json.decode((artifacts / _NAME).read_bytes(), type=Pointer)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, msgspec.ValidationError):
        return Pointer()


def read_promoted(artifacts: Path, read: Callable[[Path, str], Read], *, strict: bool = False) -> Read | None:
    """What ``read`` makes of the model that serves; None before the first promotion, and where it is damaged.

    Raises:
        ArtifactError: It is damaged, and ``strict`` asks to hear of it.
    """
    pointer = read_pointer(artifacts)
    if pointer is None or pointer.promoted is None:
        return None
    try:
        return read(artifacts, pointer.promoted)
    except ArtifactError:
        if strict:
            raise
        return None


def write_pointer(artifacts: Path, pointer: Pointer) -> None:
    """Replace the pointer atomically."""
    artifacts.mkdir(parents=True, exist_ok=True)
    atomic_write(artifacts / _NAME, msgspec.json.encode(pointer))


def seen_rule(facts: Mapping[str, Any], target: Target, unknown: SeenRule) -> SeenRule:
    """What an artifact's facts say of repeats when asked for a kind of event: as trained, else as for any kind."""
    rule: SeenRule = facts.get(SEEN_FOR, {}).get(target, facts.get("seen", unknown))
    return rule


@dataclass(frozen=True)
class Answering:
    """How one question is answered, as training found it.

    ``seen``: may answers repeat what the person had. ``chance``: that what stands at a rank is next. ``calibration``:
    what makes probabilities of scores; None where too few people could be asked.
    """

    seen: SeenRule
    chance: RankChance
    calibration: Calibration | None


def answering(facts: Mapping[str, Any], rule: SeenRule) -> dict[Target, Answering]:
    """How each question is answered, by an artifact's facts and the shop's rule on repeats."""
    return {target: _answering(facts, target, rule) for target in ASKED_CODES}


def _answering(facts: Mapping[str, Any], target: Target, rule: SeenRule) -> Answering:
    found, calibration = facts.get(CALIBRATION, {}).get(target), None
    if found is not None:
        from penchant.evaluation import Calibration

        calibration = msgspec.convert(found, Calibration)
    return Answering(
        seen=seen_rule(facts, target, "allow") if rule == "auto" else rule,
        chance=msgspec.convert(facts.get(RANK_CHANCE, {}).get(target, {}), RankChance),
        calibration=calibration,
    )


def switch(artifacts: Path, to: str) -> tuple[Pointer, str | None]:
    """Let another artifact serve; returns the new pointer and which served before."""
    old = read_pointer(artifacts) or Pointer()
    if old.promoted == to:
        return old, old.previous[0] if old.previous else None
    before = tuple(i for i in (old.promoted, *old.previous) if i is not None and i != to)
    new = msgspec.structs.replace(old, promoted=to, previous=before[:10])
    write_pointer(artifacts, new)
    return new, old.promoted


def take_back(artifacts: Path, failed: str, why: str) -> Pointer | None:
    """Let the model serve again that did before one that failed; None when another serves by now, or none did."""
    old = read_pointer(artifacts) or Pointer()
    if old.promoted != failed or not old.previous:
        return None
    new = msgspec.structs.replace(
        old,
        promoted=old.previous[0],
        previous=old.previous[1:],
        failed=(Failed(failed, why), *(one for one in old.failed if one.id != failed))[:10],
    )
    write_pointer(artifacts, new)
    return new


def step_back(artifacts: Path) -> tuple[Pointer, str]:
    """Let the model serve that did before; returns the new pointer and which served until now.

    Raises:
        ArtifactError: Nothing served before.
    """
    old = read_pointer(artifacts) or Pointer()
    if not old.previous or old.promoted is None:
        raise ArtifactError(
            "no model served before this one", value=old.promoted, hint="train or promote another"
        )
    new = msgspec.structs.replace(old, promoted=old.previous[0], previous=old.previous[1:])
    write_pointer(artifacts, new)
    return new, old.promoted
