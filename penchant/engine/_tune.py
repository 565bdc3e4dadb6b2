"""Settings of the sequence model, searched on the people who choose and told on the others."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import tomli_w

from penchant.core import Estimate, Model, Progress, Run, iso
from penchant.core.errors import ModelError
from penchant.engine import _training_requests as tr
from penchant.engine._content import with_content
from penchant.engine._model_settings import check_settings, model_config, pick_device
from penchant.engine._protocol import MEASURE, Halves, run_folder, split_people, take_snapshot
from penchant.evaluation import Evaluation, bootstrap_means, rank_metrics
from penchant.training import Search, TrialRecord, search_sequence

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

_KIND = "sequence"
_K = int(MEASURE.partition("@")[2])


def tune(shop: Shop, request: tr.TuneRequest, progress: Progress) -> tr.TuneReport:
    """Search for as long as was asked; report what was found by now, and write it down where that was asked."""
    started = time.monotonic()
    deadline = started + 60 * request.minutes
    check_settings(shop, request.size)
    device = pick_device(request.device)
    own = dict(shop.config.train.settings.get(_KIND, {}))
    config: Any = model_config(shop, _KIND, request.size)
    snapshot = with_content(shop, take_snapshot(shop, progress), progress)
    halves = split_people(
        shop, snapshot, share=shop.config.train.holdout, seen=request.seen, seed=request.seed
    )
    folder = run_folder(shop, halves.train, _KIND, config, request.seed, validated=f"tune {halves.seen}")
    measured = _Measured(folder, halves)
    found = search_sequence(
        halves.train,
        config,
        Run(
            seed=request.seed,
            device=device,
            checkpoints=folder,
            validate=halves.measure,
            target=halves.held_out.target,
            others=halves.measures,
            progress=progress,
        ),
        deadline=deadline,
        most=request.trials,
        tell=measured.keep,
    )
    if found.present is None or found.best is None:
        raise ModelError(
            "the time was not enough to measure the settings that stand",
            value=f"{request.minutes:g} minutes",
            hint="give the same command again, it goes on where it was, or give it more --minutes",
        )
    stands = found.present.settings
    better = {name: value for name, value in found.best.settings.items() if stands.get(name) != value}
    settings = {**own, **better} if better else own
    if request.size != "auto":
        settings["size"] = request.size
    applied = request.apply and settings != own
    if applied:
        shop.set_training(_KIND, settings)
    return _report(request, halves, found, measured, better, settings, applied, time.monotonic() - started)


class _Measured:
    """What each best trial reached for each person, kept beside the search: nothing is fitted again to report it."""

    def __init__(self, folder: Path, halves: Halves) -> None:
        self.folder, self.halves = folder, halves

    def keep(self, number: int, model: Model) -> None:
        """Measure a model on both halves and keep the figures."""
        halves = self.halves
        found: dict[str, np.ndarray[Any, Any]] = {}
        for name, cases in (("validation", halves.few), ("held_out", halves.held_out)):
            ranked: Evaluation = rank_metrics(model, cases, ks=[_K], seen=halves.seen, groups=())
            found[name], found[f"{name} user"] = ranked.per_case[MEASURE], ranked.user_C
        np.savez(self._file(number), **found)  # type: ignore[arg-type]

    def _file(self, number: int) -> Path:
        return self.folder / f"people-{number}.npz"

    def of(self, trial: TrialRecord, minus: TrialRecord | None = None) -> dict[str, Estimate]:
        """The measure on both halves, or a difference paired by person."""
        out = {}
        with np.load(self._file(trial.number)) as mine:
            other = None if minus is None else np.load(self._file(minus.number))
            for name in ("validation", "held_out"):
                value_C = mine[name] if other is None else mine[name] - other[name]
                bounded = np.array([other is None])
                (out[name],) = bootstrap_means(value_C[:, None], mine[f"{name} user"], bounded=bounded)
        return out


def _report(
    request: tr.TuneRequest,
    halves: Halves,
    found: Search,
    measured: _Measured,
    better: dict[str, Any],
    settings: dict[str, Any],
    applied: bool,
    seconds: float,
) -> tr.TuneReport:
    assert found.present is not None
    assert found.best is not None
    gap = measured.of(found.best, minus=found.present) if better else {}
    table = {"train": {"settings": {_KIND: settings}}} if settings else {}
    return tr.TuneReport(
        protocol=(
            f"Time split at {iso(halves.train.as_of)}: every trial learned from earlier events only. Settings were "
            f"chosen on {len(halves.few):,} people; {len(halves.held_out):,} others had no say. Full ranking over "
            f"{halves.train.num_items:,} items, seen items: {halves.seen}."
        ),
        measure=MEASURE,
        present=measured.of(found.present),
        best=measured.of(found.best),
        difference=gap,
        settings=better,
        toml=tomli_w.dumps(table),
        applied=applied,
        trials=[tr.TuneTrial(**msgspec.to_builtins(trial)) for trial in found.trials],
        importance=found.importance,
        verdict=_verdict(gap, len(found.trials)),
        seconds=round(seconds, 1),
    )


def _verdict(gap: dict[str, Estimate], trials: int) -> str:
    """What the search is worth, on people who had no say."""
    if not gap:
        return f"None of {trials} trials is better on validation than the settings that stand."
    held_out = gap["held_out"]
    lead = f"The best of {trials} trials gains {gap['validation'].signed} {MEASURE} on validation"
    if held_out.low > 0:
        return f"{lead}, and {held_out.signed} on people who had no say: it is better."
    if held_out.high < 0:
        return f"{lead}, but {held_out.signed} on people who had no say: it is worse, do not take it."
    return f"{lead}, and {held_out.signed} on people who had no say: it cannot be told from what stands."
