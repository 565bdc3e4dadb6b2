"""The search for settings: begins with what stands, goes on where it stopped, keeps to its time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penchant.core import Run
from penchant.core.errors import Interrupted, ModelError
from penchant.models import SequenceConfig
from penchant.testing import markov_snapshot
from penchant.training import Search, _search, search_sequence

pytest.importorskip("optuna")
pytest.importorskip("torch")

SNAPSHOT = markov_snapshot(users=30)
PRESENT = SequenceConfig(size="tiny")


@dataclass
class Fitted:
    """Stands for a model: how good it is depends on its dropout alone."""

    config: SequenceConfig

    @property
    def quality(self) -> float:
        return 1 - abs((self.config.dropout or 0.0) - 0.2)


class Trainer:
    """Stands for training: three epochs, each a little better."""

    def __init__(self) -> None:
        self.tried: list[SequenceConfig] = []
        self.break_at: tuple[int, BaseException] | None = None
        self.seconds = 0.0

    def __call__(self, kind: str, snapshot: Any, config: SequenceConfig, run: Run) -> Fitted:
        self.tried.append(config)
        for epoch in (1, 2, 3):
            time.sleep(self.seconds)
            if self.break_at is not None and len(self.tried) == self.break_at[0]:
                raise self.break_at[1]
            figures = {"epoch": epoch, "validation": Fitted(config).quality * (0.7 + 0.1 * epoch)}
            run.progress("sequence model: validated", epoch, 3, figures)
        found = dict.fromkeys(("transitions_decay", "neighbours_decay", "trend_days"), 0.5)
        return Fitted(msgspec.structs.replace(config, epochs=3.0, habits=(0.5,) * 7, **found))


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    made = Trainer()
    monkeypatch.setattr(_search, "fit_model", made)
    return made


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., tuple[Search, list[int]]]:
    def call(seconds: float = 60.0, most: int | None = None) -> tuple[Search, list[int]]:
        told: list[int] = []
        run = Run(seed=1, checkpoints=tmp_path / "search", validate=lambda model: model.quality)  # type: ignore[attr-defined]
        deadline = time.monotonic() + seconds
        found = search_sequence(
            SNAPSHOT, PRESENT, run, deadline=deadline, most=most, tell=lambda number, _: told.append(number)
        )
        return found, told

    return call


def test_what_stands_comes_first_and_the_best_is_no_worse(trainer: Trainer, search: Any) -> None:
    found, told = search(most=12)
    assert found.present is not None
    assert found.best is not None
    size = PRESENT.build()
    first = trainer.tried[0]
    assert (first.width, first.depth, first.learning_rate) == (size.width, size.depth, size.learning_rate)
    assert first.dropout == 0.4
    assert found.present.validation == pytest.approx(0.8)
    assert found.best.validation > 0.8
    assert found.best.validation == max(t.validation for t in found.trials if t.state == "finished")
    assert told[0] == found.present.number
    assert told[-1] == found.best.number
    assert {t.state for t in found.trials} == {"finished", "given up"}
    assert len(found.trials) == 12
    assert len({(c.dropout, c.learning_rate) for c in trainer.tried}) == 12
    finished = sum(t.state == "finished" for t in found.trials)
    assert (sum(found.importance.values()) == pytest.approx(1, abs=0.01)) == (finished >= 10)
    assert set(found.importance) <= set(found.trials[0].settings)


def test_decays_are_found_once(trainer: Trainer, search: Any) -> None:
    search(most=2)
    assert [c.transitions_decay for c in trainer.tried] == [None, 0.5]


def test_a_stopped_search_goes_on_with_the_same_trial(trainer: Trainer, search: Any, tmp_path: Path) -> None:
    trainer.break_at = (3, Interrupted("training stopped"))
    with pytest.raises(Interrupted):
        search(most=5)
    trainer.break_at = None
    found, _ = search(most=5)
    assert trainer.tried[3] == trainer.tried[2]
    assert len(found.trials) == 5
    assert sum(t.present for t in found.trials) == 1
    again, told = search(most=5)
    assert again.trials == found.trials
    assert told == []


def test_what_stands_stays_what_stands_when_it_is_cut_off(trainer: Trainer, search: Any) -> None:
    trainer.break_at = (1, Interrupted("training stopped"))
    with pytest.raises(Interrupted):
        search(most=1)
    found, _ = search(most=1)
    assert found.present is not None
    assert found.best is not None
    assert found.best.present


def test_the_time_is_kept(trainer: Trainer, search: Any) -> None:
    trainer.seconds = 0.05
    began = time.monotonic()
    found, _ = search(seconds=1.5)
    spent = time.monotonic() - began
    assert found.present is not None
    assert 1.2 < spent < 3.0


def test_settings_that_cannot_be_trained_are_passed_over(trainer: Trainer, search: Any) -> None:
    trainer.break_at = (2, ModelError("training diverged"))
    found, _ = search(most=3)
    assert [t.state for t in found.trials][:2] == ["finished", "failed"]
    assert found.trials[1].validation is None


def test_nothing_to_learn_from_is_said(trainer: Trainer, search: Any) -> None:
    trainer.break_at = (1, ModelError("no person has two events"))
    with pytest.raises(ModelError, match="two events"):
        search(most=3)
