"""Search the sequence model's settings on validation, within a budget of time, by Optuna.

The settings that stand are the first trial, so that nothing worse than they are on validation is ever found. What is
tried next comes from a multivariate tree-structured Parzen estimator (Falkner et al. 2018; Akiba et al. 2019,
"Optuna"); a trial that validates below the median of the others at the same epoch is given up. The journal in the
folder makes a search that was stopped go on, in the middle of a trial too.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from penchant.core import Ints, Model, Noun, Run, Scorer, Snapshot
from penchant.core.errors import MissingExtra, ModelError
from penchant.data import sequence_length
from penchant.models import FULL_SOFTMAX_ITEMS, SequenceConfig, Size
from penchant.training._fit import fit_model

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

_SEARCHED = (
    "width",
    "depth",
    "length",
    "interests",
    "dropout",
    "learning_rate",
    "weight_decay",
    "batch",
    "loss",
    "negatives",
)
_DECAYS = ("transitions_decay", "neighbours_decay", "habits", "trend_days")
_PRESENT, _SETTINGS, _DECAYS_FOUND, _TAIL = "present", "settings", "decays", "tail"  # notes in the journal
_VALIDATED = ": validated"  # how the training loop's task ends when it has judged an epoch
_STARTUP, _MEDIAN_AFTER, _WARM_EPOCHS = (
    6,
    3,
    2,
)  # trials drawn at random; finished trials a median needs; epochs
_ENOUGH = 10  # results that differ, before anything is said of what matters
_FULL_SOFTMAX_MOST = 30_000  # items: above, every item competing costs more than it could give

State = Literal["finished", "given up", "failed"]


class TrialRecord(Noun, frozen=True):
    """One setting that was tried. ``validation`` None: it failed; of one given up, its best epoch."""

    number: int
    present: bool  # the settings as they were
    state: State
    settings: dict[str, Any]
    validation: float | None
    epochs: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Search:
    """What a search knows by now."""

    trials: list[TrialRecord]
    importance: dict[
        str, float
    ]  # share of the spread of the results that each setting explains; {} if unknown

    @property
    def present(self) -> TrialRecord | None:
        """The settings as they were, once they are measured."""
        return next((t for t in self.trials if t.present and t.state == "finished"), None)

    @property
    def best(self) -> TrialRecord | None:
        """The finished trial with the highest validation, the earliest of equals."""
        done = [t for t in self.trials if t.state == "finished" and t.validation is not None]
        return max(done, key=lambda t: (t.validation or 0.0, -t.number), default=None)


class _OutOfTime(Exception):
    """The budget is spent in the middle of a trial."""


def search_sequence(
    snapshot: Snapshot,
    config: SequenceConfig,
    run: Run,
    *,
    deadline: float,
    most: int | None = None,
    tell: Callable[[int, Model], None],
) -> Search:
    """Try settings of the sequence model until the time is over.

    Args:
        snapshot: What every trial learns from.
        config: The settings that stand.
        run: ``validate`` judges, ``checkpoints`` is the folder of the search: what is there is gone on with.
        deadline: Value of ``time.monotonic()`` at which the search ends, within a training step or two.
        most: Trials in all, those of earlier calls counted; None = as many as the time allows.
        tell: Called with a trial's number and model each time one finishes that is better than all before it.

    Raises:
        MissingExtra: Optuna or torch is not installed.
        Interrupted: Ctrl-C; the same call goes on with the same trial.
    """
    optuna = _optuna()
    assert run.validate is not None
    assert run.checkpoints is not None
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    space = _Space.around(config, sequence_length(snapshot), snapshot.num_items)
    study = _study(optuna, run.checkpoints, run.seed)
    _take_up(optuna, study, space.present)
    search = _Searching(optuna, study, space, snapshot, run, run.validate, deadline)
    while time.monotonic() < deadline and (most is None or len(_records(study)) < most):
        trial = study.ask()
        try:
            model = search.attempt(trial)
        except _OutOfTime:
            break
        found = Search(_records(study), {})
        if model is not None and found.best is not None and found.best.number == trial.number:
            tell(trial.number, model)
    return Search(_records(study), _importance(optuna, study))


def _optuna() -> Any:
    try:
        import optuna
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtra("train", "the search for settings") from None
    logging.getLogger("optuna").setLevel(logging.ERROR)
    return optuna


@dataclass(frozen=True)
class _Space:
    """What may be chosen: around the settings that stand, which are always among the choices."""

    config: SequenceConfig
    size: Size
    present: dict[str, Any]
    catalogue: int

    @classmethod
    def around(cls, config: SequenceConfig, length_U: Ints, num_items: int) -> _Space:
        settled = config.for_histories(length_U, num_items)
        size = settled.build()
        loss = settled.loss
        if loss == "auto":
            loss = "full" if num_items <= FULL_SOFTMAX_ITEMS else "sampled"
        batch = size.batch
        if settled.batch is None:
            from penchant.training._loop import fit_size

            batch = fit_size(size, num_items).batch
        own = {name: getattr(settled, name) for name in ("interests", "weight_decay")}
        present = {
            **{name: getattr(size, name) for name in Size.__struct_fields__ if name in _SEARCHED},
            **own,
            "dropout": settled.dropout_or_default,
            "batch": batch,
            "loss": loss,
        }
        if loss == "full":
            del present["negatives"]
        return cls(config, size, present, num_items)

    def suggest(self, trial: Trial) -> SequenceConfig:
        """The settings of one trial."""
        now, heads = self.present, self.size.heads
        chosen = {
            "width": trial.suggest_categorical(
                "width", _near(now["width"], (0.5, 1, 1.5, 2), multiple=heads, least=8)
            ),
            "depth": trial.suggest_int("depth", 1, max(3, now["depth"] + 1)),
            "length": trial.suggest_categorical("length", _near(now["length"], (0.5, 1, 2), most=200)),
            "interests": trial.suggest_categorical("interests", _near(now["interests"], (1, 2, 4), most=64)),
            "dropout": trial.suggest_float("dropout", min(0.05, now["dropout"]), max(0.7, now["dropout"])),
            "learning_rate": _suggest_log(trial, "learning_rate", now["learning_rate"], 4),
            "weight_decay": _suggest_log(trial, "weight_decay", max(now["weight_decay"], 1e-4), 30),
            "batch": trial.suggest_categorical("batch", _near(now["batch"], (0.5, 1, 2), least=64)),
        }
        losses = ["sampled", "full"] if self.catalogue <= _FULL_SOFTMAX_MOST else ["sampled"]
        chosen["loss"] = trial.suggest_categorical("loss", sorted({*losses, now["loss"]}))
        if chosen["loss"] == "sampled":
            usual = now.get("negatives", self.size.negatives)
            chosen["negatives"] = trial.suggest_categorical(
                "negatives", _near(usual, (0.5, 1, 2, 4), least=16)
            )
        chosen = {name: _rounded(value, now.get(name)) for name, value in chosen.items()}
        trial.set_user_attr(_SETTINGS, chosen)
        return msgspec.structs.replace(self.config, **chosen)


def _rounded(value: Any, present: Any) -> Any:
    """Three digits are enough for anything that was drawn."""
    return value if value == present or not isinstance(value, float) else float(f"{value:.3g}")


def _near(
    value: int, factors: tuple[float, ...], *, multiple: int = 1, least: int = 1, most: int = 1 << 16
) -> list[int]:
    """The value and multiples of it, in order."""
    steps = {round(value * factor / multiple) * multiple for factor in factors}
    return sorted({value, *(step for step in steps if least <= step <= most)})


def _suggest_log(trial: Trial, name: str, value: float, factor: float) -> float:
    drawn: float = trial.suggest_float(name, value / factor, value * factor, log=True)
    return drawn


def _study(optuna: Any, folder: Path, seed: int) -> Study:
    """The search in a folder, begun or gone on with; a stopped one does not draw the same again."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study: Study = optuna.create_study(
        study_name="sequence",
        storage=JournalStorage(JournalFileBackend(str(folder / "search.log"))),
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_MEDIAN_AFTER, n_warmup_steps=_WARM_EPOCHS),
    )
    drawn = int(np.random.SeedSequence([seed, len(study.trials)]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=_STARTUP, multivariate=True, seed=drawn)
    return study


def _take_up(optuna: Any, study: Study, present: Mapping[str, Any]) -> None:
    """Begin with the settings that stand; a trial that was cut off is the next one again."""
    states = optuna.trial.TrialState
    left = [t for t in study.trials if t.state == states.RUNNING]
    for trial in left:
        study.tell(trial.number, state=states.FAIL)
    if not any(t.state == states.WAITING for t in study.trials):
        for trial in left:
            own = {name: True for name in trial.user_attrs if name == _PRESENT}
            study.enqueue_trial(trial.params, user_attrs=own)
    if not study.trials:
        study.enqueue_trial(dict(present), user_attrs={_PRESENT: True})


@dataclass(frozen=True, eq=False)
class _Searching:
    """One call of the search: tries settings one after the other."""

    optuna: Any
    study: Study
    space: _Space
    snapshot: Snapshot
    run: Run
    validate: Callable[[Scorer], float]
    deadline: float
    started: float = field(default_factory=time.monotonic)

    def attempt(self, trial: Trial) -> Model | None:
        """Fit and judge one setting; None where it was given up or failed."""
        config = self.space.suggest(trial)
        decays = self.study.user_attrs.get(_DECAYS_FOUND)
        if decays:  # they were found once, and do not depend on the network
            config = msgspec.structs.replace(config, **decays)
        assert self.run.checkpoints is not None
        key = hashlib.sha256(msgspec.json.encode(config)).hexdigest()[:16]
        folder = self.run.checkpoints / key
        earlier = float(self.study.user_attrs.get(f"seconds {key}", 0.0))
        begun = time.monotonic()

        def spent() -> float:
            return round(earlier + time.monotonic() - begun, 1)

        clock = _Clock(self, trial)
        try:
            run = replace(self.run, checkpoints=folder, progress=clock.listen)
            found: Model | None = fit_model("sequence", self.snapshot, config, run)
            assert found is not None
            value = self.validate(found)
        except self.optuna.TrialPruned:
            trial.set_user_attr("seconds", spent())
            self.study.tell(trial, state=self.optuna.trial.TrialState.PRUNED)
            found = None
        except ModelError:
            if _PRESENT in trial.user_attrs:  # no other settings would find more to learn from
                raise
            trial.set_user_attr("seconds", spent())
            self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
            found = None
        except BaseException:
            self.study.set_user_attr(f"seconds {key}", spent())
            raise
        else:
            trial.set_user_attr("seconds", spent())
            trial.set_user_attr("epochs", round(found.config.epochs or 0))
            if not decays:
                self.study.set_user_attr(
                    _DECAYS_FOUND, {name: getattr(found.config, name) for name in _DECAYS}
                )
            tail = time.monotonic() - clock.judged
            if tail > self.study.user_attrs.get(_TAIL, 0.0):
                self.study.set_user_attr(_TAIL, round(tail, 1))
            self.study.tell(trial, value)
        shutil.rmtree(folder, ignore_errors=True)
        return found


@dataclass(eq=False)
class _Clock:
    """Judges a trial at each epoch, and looks at the time at each step."""

    search: _Searching
    trial: Trial
    judged: float = field(default_factory=time.monotonic)  # when the last epoch was
    seen: set[int] = field(default_factory=set)

    def listen(self, task: str, done: int, total: int | None, figures: Mapping[str, float]) -> None:
        """A ``Progress``: the trial goes on while it returns.

        To blend, export and judge a network takes time too: training ends as long before the deadline as that took
        in the trial that took longest.
        """
        search, now = self.search, time.monotonic()
        if now >= search.deadline - search.study.user_attrs.get(_TAIL, 0.0) and "blending" not in task:
            raise _OutOfTime
        whole = max(1, round(search.deadline - search.started))
        shown = {"trial": float(self.trial.number), **figures}
        search.run.progress("tuning", min(whole, round(now - search.started)), whole, shown)
        if not task.endswith(_VALIDATED):
            return
        self.judged = now
        if done not in self.seen:  # a trial that goes on from a checkpoint tells an epoch again
            self.seen.add(done)
            self.trial.report(figures["validation"], done)
            if _PRESENT not in self.trial.user_attrs and self.trial.should_prune():
                raise search.optuna.TrialPruned


def _record(trial: FrozenTrial) -> TrialRecord | None:
    """A trial as it is told; None while it is not over, or where it was only cut off."""
    names: dict[str, State] = {"COMPLETE": "finished", "PRUNED": "given up", "FAIL": "failed"}
    state = names.get(trial.state.name)
    if state is None or (state == "failed" and "seconds" not in trial.user_attrs):
        return None
    best = trial.value if state == "finished" else max(trial.intermediate_values.values(), default=None)
    return TrialRecord(
        number=trial.number,
        present=_PRESENT in trial.user_attrs,
        state=state,
        settings=dict(trial.user_attrs.get(_SETTINGS, trial.params)),
        validation=best,
        epochs=int(trial.user_attrs.get("epochs", max(trial.intermediate_values, default=0))),
        seconds=float(trial.user_attrs["seconds"]),
    )


def _records(study: Study) -> list[TrialRecord]:
    return [record for trial in study.trials if (record := _record(trial)) is not None]


def _importance(optuna: Any, study: Study) -> dict[str, float]:
    """PED-ANOVA (Watanabe et al. 2023) over the finished trials, most important first."""
    values = {t.value for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE}
    if len(values) < _ENOUGH:
        return {}
    found: dict[str, float] = optuna.importance.get_param_importances(study)
    return {name: round(float(share), 3) for name, share in found.items() if np.isfinite(share)}
