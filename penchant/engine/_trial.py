"""A promoted model on trial: what it does in front of people, against what the model before it did.

The canary (``_canary``) looks at a model before it serves. What it cannot see is told by answers: errors, answers
without items, answers that come late, and whether people turn to what they are shown. Each is a share of answers that
is compared by an interval that holds however often one looks (the mixture sequential test of ``evaluation``); a model
that is surely worse by more than its margin is taken back, and the one before serves again.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from penchant.core import TARGET_KINDS, Event, Slate
from penchant.evaluation import mixture_half_width

LEAST = 50  # answers of each model before anything is said
LEVEL = 0.999  # of each comparison: one false alarm in some two hundred trials
CLICKS_AFTER = 600.0  # seconds that people have to turn to what they were shown
_PLANNED = 2_000  # answers at which the intervals are narrowest
_MOST = (
    50_000  # answers of a model after which the old ones count half, and answers whose clicks are waited for
)
_NEVER_LATE = 0.01  # seconds

# By how much more of its answers a model must surely be worse: (of all answers, of what the one before had).
_MARGINS = {
    "failed": (0.01, 0.0),
    "had no items": (0.02, 0.0),
    "came late": (0.25, 0.0),
    "had no click": (0.0, 0.2),
}


def doublings(seconds: float) -> int:
    """How often a microsecond doubles until it is longer."""
    return int(seconds * 1e6).bit_length()


@dataclass
class Record:
    """What the answers of one model were like."""

    answers: int = 0
    failed: int = 0
    empty: int = 0
    seconds: Counter[int] = field(
        default_factory=Counter
    )  # answers by how often a microsecond doubles to their time
    judged: int = 0  # answers that people had time to turn to
    clicked: int = 0

    def answered(self, seconds: float, *, empty: bool) -> None:
        """Count one answer."""
        self.answers += 1
        self.empty += empty
        self.seconds[doublings(seconds)] += 1
        if self.answers > _MOST:
            self._halve()

    def _halve(self) -> None:
        for name in ("answers", "failed", "empty", "judged", "clicked"):
            setattr(self, name, getattr(self, name) // 2)
        self.seconds = Counter({taken: count // 2 for taken, count in self.seconds.items()})

    def late(self, than: int) -> int:
        """How many answers took longer than so many doublings."""
        return sum(count for time_taken, count in self.seconds.items() if time_taken > than)

    def usual(self) -> int:
        """The doublings that all but a twentieth of answers stay within."""
        seen, whole = 0, sum(self.seconds.values())
        for time_taken in sorted(self.seconds):
            seen += self.seconds[time_taken]
            if seen >= 0.95 * whole:
                return time_taken
        return 0


@dataclass
class _Shown:
    """An answer whose clicks are waited for."""

    moment: float
    model_id: str
    clicked: bool = False


def surely_more(new: int, of_new: int, old: int, of_old: int, margin: float) -> bool:
    """Whether a share has surely risen by more than a margin, however often that is asked.

    Example:
        >>> surely_more(30, 100, 2, 1000, 0.01), surely_more(3, 100, 2, 1000, 0.01)
        (True, False)
    """
    if min(of_new, of_old) < LEAST:
        return False
    p, q = (
        (new + 0.5) / (of_new + 1),
        (old + 0.5) / (of_old + 1),
    )  # never certain of what was seen a few times
    variance = p * (1 - p) / of_new + q * (1 - q) / of_old
    half = mixture_half_width(variance, of_new + of_old, _PLANNED, LEVEL)
    return new / of_new - old / of_old - half > margin


class Trials:
    """The records of the models that serve and served in this process, and the trial that goes on.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._open: OrderedDict[str, _Shown] = OrderedDict()
        self._lock = threading.Lock()
        self.new: str | None = None  # the model on trial
        self.old: str | None = None

    def begin(self, new: str, old: str) -> None:
        """Put a model on trial against the one that served before."""
        with self._lock:
            kept = self._records.get(old, Record())
            self._records = {old: kept, new: Record()}
            self.new, self.old = new, old

    def end(self) -> None:
        """The model that serves is the usual one from now on."""
        with self._lock:
            self.new = self.old = None

    def answered(self, slate: Slate, seconds: float) -> None:
        """Count an answer."""
        now = self._clock()
        with self._lock:
            self._of(slate.model_id).answered(seconds, empty=not slate.items)
            self._open[slate.recommendation_id] = _Shown(now, slate.model_id)
            while self._open:
                oldest = next(iter(self._open.values()))
                over = now - oldest.moment >= CLICKS_AFTER
                if not over and len(self._open) <= _MOST:
                    break
                self._open.popitem(last=False)
                if over:
                    record = self._of(oldest.model_id)
                    record.judged += 1
                    record.clicked += oldest.clicked

    def failed(self, model_id: str) -> None:
        """Count an answer that a model failed to give."""
        with self._lock:
            record = self._of(model_id)
            record.answers += 1
            record.failed += 1

    def observed(self, events: Iterable[Event]) -> None:
        """Take note of who turned to what they were shown."""
        for event in events:
            if event.recommendation_id is None or str(event.kind) not in TARGET_KINDS:
                continue
            with self._lock:
                if (one := self._open.get(event.recommendation_id)) is not None:
                    one.clicked = True

    def _of(self, model_id: str) -> Record:
        return self._records.setdefault(model_id, Record())

    def verdict(self) -> str | None:
        """Why the model on trial has to be taken back; None while there is no reason."""
        with self._lock:
            if self.new is None or self.old is None:
                return None
            new, old = self._records[self.new], self._records[self.old]
            late = max(old.usual() + 1, doublings(_NEVER_LATE))  # twice what nearly all took before
            counts = {
                "failed": (new.failed, new.answers, old.failed, old.answers),
                "had no items": (new.empty, new.answers, old.empty, old.answers),
                "came late": (
                    new.late(late),
                    sum(new.seconds.values()),
                    old.late(late),
                    sum(old.seconds.values()),
                ),
                "had no click": (
                    new.judged - new.clicked,
                    new.judged,
                    old.judged - old.clicked,
                    old.judged,
                ),
            }
        for what, (bad, of_new, was, of_old) in counts.items():
            whole, relative = _MARGINS[what]
            base = (of_old - was) / of_old if of_old else 0.0
            if surely_more(bad, of_new, was, of_old, whole + relative * base):
                return f"{bad / of_new:.1%} of its answers {what}, {was / of_old:.1%} of those of the model before"
        return None
