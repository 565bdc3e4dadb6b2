"""Fit the sequence model: train the network, count, find the blend on validation, export."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import sparse

from penchant.core import Bools, Run, Scorer, SequenceBatch, Snapshot, Target, Vocabulary, no_progress, rng
from penchant.core.errors import MissingExtra, ModelError
from penchant.data import item_content, item_labels, sequence_length, target_kinds, training_windows
from penchant.models import (
    Blend,
    Content,
    Frequency,
    FrequencyConfig,
    Habits,
    HabitsConfig,
    ItemKNN,
    ItemKNNConfig,
    NeighbourModel,
    RecentPopularity,
    RecentPopularityConfig,
    Sequence,
    SequenceConfig,
    Transitions,
    TransitionsConfig,
    beginnings,
    kinds_in,
    log_trend,
    uphill,
)
from penchant.training._content import borrowing, content_of, settle_content
from penchant.training._export import ITEM_WEIGHT, encoder_graphs, encoder_weights, sample_batch

if TYPE_CHECKING:
    from torch import nn

_EXPORT_TOLERANCE = 1e-4
# An update asks for the new events once, and for as many old ones again, so that what they taught stays.
_REPLAY, _UPDATE_RATE = 1.0, 0.5
_UPDATE_LENGTH = 50  # what came long before the few new events costs most and teaches little
# Where the blend starts, and the steps it may take; 0 leaves a part out. The counts are mixed before the network
# learns, so that it is judged in the company it will have, and all is weighed once more when it has learned.
_FIRST_BLEND = {
    "counts_weight": 4.0,
    "neighbours_weight": 0.5,
    "counts_floor": 0.1,
    "repeats_weight": 0.0,
    "own_weight": 0.0,
    "trend_weight": 0.0,
}
_MEMORY_CELLS = 125_000_000  # 500 MB of float32
_COMPANY = (1.0, 4.0, 16.0, 64.0)  # weights of the counts beside which a network in training is judged
_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_Grid = tuple[tuple[str, tuple[float, ...]], ...]
_REPEATS = ("repeats_weight", (0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0))
_NEIGHBOURS = ("neighbours_weight", (0.0, 0.5, 1.0, 2.0, 4.0, 8.0))
_OWN = ("own_weight", (0.0, 0.1, 1.0, 10.0, 100.0))
_TREND = ("trend_weight", (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0))
_MIX: _Grid = (_REPEATS, _OWN, _NEIGHBOURS, _REPEATS, _TREND)
_BLEND: _Grid = (
    ("counts_weight", _WEIGHTS),
    _REPEATS,
    _OWN,
    ("counts_floor", (0.03, 0.1, 0.3, 1.0, 3.0)),
    _NEIGHBOURS,
    _TREND,
    ("counts_weight", _WEIGHTS),
)


def _require_torch() -> None:
    """Say which extra is missing before any work is done."""
    try:
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtra("train", "the sequence model") from None


def fit_sequence(snapshot: Snapshot, config: SequenceConfig, run: Run) -> Sequence:
    """Fit a ``Sequence``: everything left open in ``config`` is decided by ``run.validate`` and filled in.

    Raises:
        MissingExtra: torch or its ONNX exporter is not installed.
        ModelError: There is nothing to learn from, or the export does not agree with the network.
        Interrupted: Ctrl-C; the same call goes on from the last checkpoint.
    """
    _require_torch()
    from penchant.models._sequence_torch import SequenceTransformer
    from penchant.training._distributed import join
    from penchant.training._loop import train_network

    validate, world = run.validate, join(run.device)

    def together(measure: Callable[[Scorer], float]) -> Callable[[Scorer], float]:
        return lambda scorer: world.decide(lambda: measure(scorer))

    decided = None if validate is None else together(validate)
    others = {target: together(measure) for target, measure in run.others.items()}
    config = config.for_histories(sequence_length(snapshot), snapshot.num_items)
    if config.asked is None:
        config = msgspec.structs.replace(config, asked=target_kinds(snapshot))
    counting = replace(run, validate=decided, others=others, progress=no_progress)
    shell, config = _count(snapshot, config, counting)
    open_ = {name: at for name, at in _FIRST_BLEND.items() if config.counts and getattr(config, name) is None}
    mix, blend = (tuple(part for part in grid if part[0] in open_) for grid in (_MIX, _BLEND))
    found = _with(config, open_)
    if decided is not None and mix:
        alone = shell.alone(found)
        found = search_blend(lambda trial: decided(replace(alone, config=trial)), found, mix, run)
    label_NL = item_labels(snapshot) if config.attributes else None
    trained = train_network(
        lambda: SequenceTransformer(config, snapshot.num_items, label_NL),
        snapshot,
        config,
        run,
        None
        if validate is None
        else lambda network: _best_blended(validate, shell.live(network, found), "counts_weight" in open_),
    )
    found = msgspec.structs.replace(found, epochs=float(trained.epochs))
    if decided is not None and blend:
        live = shell.live(trained.network, found)
        found = search_blend(lambda trial: decided(replace(live, config=trial)), found, blend, run)
        own = tuple(part for part in blend if part[0] in Blend.__struct_fields__)
        found = _with_other_blends(shell.live(trained.network, found), others, own, run)
    content_NC = item_content(snapshot) if config.content else None
    if content_NC is not None:
        live = shell.live(trained.network, found)
        content, found = settle_content(live, content_NC, run, world)
        shell = shell.with_content(content)
    return shell.exported(trained.network, found)


def _with_other_blends(
    live: Sequence, others: Mapping[Target, Callable[[Scorer], float]], grid: _Grid, run: Run
) -> SequenceConfig:
    """The config of a model with a blend of its own for each further question, searched from its first one."""
    found = live.config
    for target, measure in others.items():
        if target in live.config.blends:  # what is set is not searched
            continue
        one = search_blend(lambda trial: measure(replace(live, config=trial)), live.config, grid, run)  # noqa: B023
        found = msgspec.structs.replace(found, blends={**found.blends, target: one.blend(target)})
    return found


def update_sequence(model: Sequence, items: Vocabulary, snapshot: Snapshot, since: int, run: Run) -> Sequence:
    """Go on learning where a fitted ``Sequence`` stopped: from events at or after ``since``, and counts anew.

    Items that are new since then begin with the mean vector of the items that share their brand, category or labels.

    Args:
        model: What was fitted before.
        items: The vocabulary it is numbered by.
        snapshot: Everything known now; its vocabulary may be another.
        since: Microseconds: where the model stopped learning.
        run: Seed, device and progress. Nothing is validated: the blend stays as it was found.

    Raises:
        MissingExtra: torch or its ONNX exporter is not installed.
        ModelError: Nobody turned to an item since, or the export does not agree with the network.
    """
    _require_torch()
    import torch

    from penchant.models._sequence_torch import SequenceTransformer
    from penchant.training._loop import train_network

    shell, _ = _count(snapshot, model.config, replace(run, validate=None, progress=no_progress))
    content_NC = item_content(snapshot)
    if content_NC is not None and model.config.content:
        shell = shell.with_content(content_of(content_NC, shell.met_N, model.config))
    every = training_windows(snapshot, min(model.config.build().length, _UPDATE_LENGTH))
    new = every.since(snapshot, since)
    if not len(new):
        raise ModelError("nobody turned to an item since the model learned", hint="wait for new events")
    share = _REPLAY * new.num_targets / every.num_targets
    again = np.flatnonzero(rng(run.seed, "replay").random(len(every)) < share)
    start_ND = grown_vectors(model.item_ND, items, snapshot)
    if content_NC is not None and model.config.content and model.config.lending:
        start_ND = Content.of(content_NC, items.renumbering(snapshot.items) > 0).lent(start_ND)

    def make() -> nn.Module:
        network = SequenceTransformer(model.config, snapshot.num_items)
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in model.weights.items()}
        network.load_state_dict({**tensors, ITEM_WEIGHT: torch.from_numpy(start_ND)})
        return network

    rate = model.config.learning_rate or model.config.build().learning_rate
    config = _with(model.config, {"epochs": 1.0, "learning_rate": _UPDATE_RATE * rate})
    trained = train_network(make, snapshot, config, run, None, new.join(every.take(again)))
    return shell.exported(trained.network, model.config, model.encoder)


def grown_vectors(
    item_ND: npt.NDArray[np.float32], items: Vocabulary, snapshot: Snapshot
) -> npt.NDArray[np.float32]:
    """Item vectors in the numbers of a snapshot, (N + 1, D): known ones as they are, new ones from their like.

    A new item gets the mean, over its labels, of the mean vector of the known items that bear the label; without
    such labels the mean of all known items.
    """
    old_N = items.renumbering(snapshot.items)
    grown_ND = item_ND[old_N]
    known_N = old_N > 0
    if known_N[1:].all():
        return grown_ND
    new_J = np.flatnonzero(~known_N)[1:]
    grown_ND[new_J] = item_ND[1:].mean(axis=0)
    label_NL = item_labels(snapshot)
    if not label_NL.size:
        return grown_ND
    item_P, slot_P = np.nonzero(label_NL)
    label_P = label_NL[item_P, slot_P]
    borne = sparse.csr_array(
        (np.ones(len(item_P), np.float32), (label_P, item_P)),
        shape=(int(label_NL.max()) + 1, len(label_NL)),
    )
    of_known = borne * known_N.astype(np.float32)[None]
    bearers_K = np.asarray(of_known.sum(axis=1)).ravel()
    mean_KD = (of_known @ grown_ND) / np.maximum(bearers_K, 1)[:, None]
    useful = sparse.csr_array(borne.T[new_J] * (bearers_K > 0).astype(np.float32)[None])
    labels_J = np.asarray(useful.sum(axis=1)).ravel()
    found_J = labels_J > 0
    grown_ND[new_J[found_J]] = ((useful @ mean_KD) / np.maximum(labels_J, 1)[:, None])[found_J]
    return grown_ND.astype(np.float32)


def _best_blended(validate: Callable[[Scorer], float], live: Sequence, search: bool) -> float:
    """Judge a network in the company it will have: with the counts at their first weight, a lighter, or a heavier one.

    At one fixed weight strong counts hide a network that is still learning, or a network that grows louder with
    every pass drowns counts that were right, and training stops too soon.
    """
    if not search:
        return validate(live)
    return max(
        validate(replace(live, config=_with(live.config, {"counts_weight": weight}))) for weight in _COMPANY
    )


def _count(snapshot: Snapshot, config: SequenceConfig, run: Run) -> tuple[_Shell, SequenceConfig]:
    """Count; how histories fade and are read, what habits weigh and what counts as of late go into the config."""
    of_transitions = TransitionsConfig(decay=config.transitions_decay, readings=config.transitions_readings)
    of_neighbours = ItemKNNConfig(decay=config.neighbours_decay, readings=config.neighbours_readings)
    of_own, own_run = FrequencyConfig(decay=config.own_decay, readings=config.own_readings), run
    transitions = Transitions.fit(snapshot, of_transitions, run)
    neighbours = ItemKNN.fit(snapshot, of_neighbours, run)
    habits = Habits.fit(snapshot, HabitsConfig(weights=config.habits), run)
    recent = RecentPopularity.fit(snapshot, RecentPopularityConfig(half_life_days=config.trend_days), run)
    if len(kinds_in(snapshot)) < 2:  # habits say all of it
        of_own, own_run = FrequencyConfig(decay=1.0), Run()
        config = _with(config, {"own_weight": 0.0})
    own = Frequency.fit(snapshot, of_own, own_run)
    config = msgspec.structs.replace(
        config,
        transitions_decay=transitions.config.decay,
        neighbours_decay=neighbours.config.decay,
        habits=habits.weights,
        trend_days=recent.config.half_life_days,
        own_decay=own.config.decay,
        transitions_readings=transitions.config.readings,
        neighbours_readings=neighbours.config.readings,
        own_readings=own.config.readings,
    )
    trend_N = log_trend(snapshot, recent.config.half_life_days)
    return _Shell((transitions, neighbours, habits, own), beginnings(snapshot), trend_N), config


def _with(config: SequenceConfig, values: Mapping[str, float]) -> SequenceConfig:
    return msgspec.structs.replace(config, **values)


def search_blend(
    measure: Callable[[SequenceConfig], float], config: SequenceConfig, grid: _Grid, run: Run
) -> SequenceConfig:
    """Find the weights of the counted part on validation: one after the other, uphill from where they stand."""

    def told(done: int, value: float) -> None:
        run.progress("sequence model: blending counts", done, len(grid), {"validation": value})

    start = {name: getattr(config, name) for name, _ in grid}
    return _with(config, uphill(lambda values: measure(_with(config, values)), start, grid, told))


class _Shell:
    """The counted half of the model, waiting for a network to complete it."""

    def __init__(
        self,
        counted: tuple[Transitions, ItemKNN, Habits, Frequency],
        prior_N: npt.NDArray[np.float32],
        trend_N: npt.NDArray[np.float32],
        content: Content | None = None,
    ) -> None:
        self.counted = counted
        self.prior, self.trend = prior_N, trend_N
        self.content = content
        self.memory = _Memory()

    @property
    def met_N(self) -> Bools:
        """Items that somebody has turned to, (N + 1,)."""
        return self.counted[0].popular > 0

    def with_content(self, content: Content) -> _Shell:
        """The same with what items say."""
        return _Shell(self.counted, self.prior, self.trend, content)

    def live(self, network: nn.Module, config: SequenceConfig) -> Sequence:
        """The model with the torch network still in it, for validation; unmet items borrow where content is known."""
        item_ND: npt.NDArray[np.float32] = network.items().detach().cpu().numpy()  # type: ignore[operator]
        return borrowing(_Live(config, *self._parts(item_ND), memory=self.memory, network=network))

    def alone(self, config: SequenceConfig) -> Sequence:
        """The counts without a network."""
        nothing = np.zeros((len(self.prior), 1), np.float32)
        return _Alone(config, *self._parts(nothing), memory=self.memory)

    def _parts(self, item_ND: npt.NDArray[np.float32]) -> tuple[Any, ...]:
        """Fields of a ``Sequence`` that has no graph."""
        none = np.empty(0, np.uint8)
        return none, item_ND, self.prior, self.trend, *self.counted, {}, self.content

    def exported(
        self, network: nn.Module, config: SequenceConfig, like: npt.NDArray[np.uint8] | None = None
    ) -> Sequence:
        """The model as it serves, checked against the network; ``like``: a graph that may need no more than weights."""
        import torch

        network = network.folded()  # type: ignore[operator]
        live = self.live(network, config)
        network.load_state_dict({ITEM_WEIGHT: torch.from_numpy(live.item_ND.copy())}, strict=False)
        weights = encoder_weights(network)
        batch = sample_batch(len(live.item_ND) - 1, config)
        wanted = live.interests(batch)[0]
        error = np.inf
        for graph in encoder_graphs(network, config, weights, like):
            parts = (
                graph,
                live.item_ND.copy(),
                live.prior_N,
                live.trend_N,
                *self.counted,
                weights,
                self.content,
            )
            served = Sequence(config, *parts)
            error = np.abs(served.interests(batch)[0] - wanted).max()
            if error <= _EXPORT_TOLERANCE:
                return served
        raise ModelError("the exported encoder differs from the trained one", value=float(error))


@dataclass(frozen=True, eq=False)
class _Remembering(Sequence):
    """A ``Sequence`` that counts for a batch once, for all epochs and blends."""

    memory: _Memory = field(kw_only=True)

    def rows(self, model: NeighbourModel | Habits, batch: SequenceBatch) -> npt.NDArray[np.float32]:
        """What one counted model says of a batch, remembered."""
        key = _key(batch)
        found_BN = self.memory.rows.get((id(model), key))
        if found_BN is None:
            found_BN = super().rows(model, batch)
            self.memory.keep(model, key, found_BN)
        return found_BN.copy()


@dataclass(frozen=True, eq=False)
class _Alone(_Remembering):
    """The counts, and a network that says nothing."""

    def interests(self, batch: SequenceBatch) -> tuple[Any, Any]:
        """Zeros."""
        rows = len(batch.item_BT)
        return np.zeros((rows, 1, 1), np.float32), np.ones((rows, 1), np.float32)


@dataclass(frozen=True, eq=False)
class _Live(_Remembering):
    """A ``Sequence`` whose encoder is the torch network. What it found for a batch it remembers."""

    network: nn.Module = field(kw_only=True)
    known: dict[bytes, tuple[Any, Any]] = field(default_factory=dict)

    def encode(self, part: SequenceBatch) -> tuple[Any, Any]:
        """Run the network in place of the ONNX graph."""
        import torch

        key = _key(part)
        if key not in self.known:
            self.network.eval()
            with torch.inference_mode():
                mean, spread = self.network.interests(part)  # type: ignore[operator]
            self.known[key] = mean.cpu().numpy(), spread.cpu().numpy()
        return self.known[key]


class _Memory:
    """What the counts say of the people who choose; it stays the same while the network learns."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, bytes], npt.NDArray[np.float32]] = {}
        self._of: dict[int, NeighbourModel | Habits] = {}  # held, so that nothing else gets their ids
        self._cells = 0

    def keep(self, model: NeighbourModel | Habits, key: bytes, found_BN: npt.NDArray[np.float32]) -> None:
        """Remember it, while memory lasts."""
        if self._cells + found_BN.size <= _MEMORY_CELLS:
            self._cells += found_BN.size
            self._of[id(model)] = model
            self.rows[id(model), key] = found_BN


def _key(batch: SequenceBatch) -> bytes:
    arrays: list[np.ndarray[Any, Any]] = [batch.item_BT, batch.kind_BT, batch.gap_BT, batch.value_BT]
    arrays += [array for array in (batch.asked_B, batch.shown_BS, batch.shown_age_BS) if array is not None]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).digest()
