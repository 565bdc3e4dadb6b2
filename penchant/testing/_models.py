"""The conformance suite of models: subclass it in a test module, name the kind, and every promise is tested."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from penchant.core import History, Model, Run, SequenceBatch, Snapshot
from penchant.core.errors import InputError, ModelError
from penchant.data import live_sequences, sequence_batch
from penchant.models import model_kinds
from penchant.testing._toys import checkerboard_snapshot, markov_snapshot, toy_snapshot, withheld_item
from penchant.training import fit_model

MAX_LENGTH = 50
SCRATCH = 128 * 2**20  # bytes that scoring may take beside eight times its answer
WIDE_ITEMS, MANY_ROWS = 1000, 2000  # a score for each event of each row, all held at once, would be 400 MB


class ModelTests:
    """What every model must hold. Everything is fitted once on the checkerboard of 50 people and 20 items.

    The checkerboard test is for models that read histories; popularity answers everybody alike and so sets
    ``personal = False``, which exempts it from that test and from having companions and affinities. A model of
    habits sets ``companions = False``.

    Example:
        ``class TestEASE(ModelTests): kind = "ease"; config = {"reg": 10.0}``
    """

    kind: ClassVar[str]
    """Name of the entry point in ``penchant.models``; a subclass sets it."""
    config: ClassVar[dict[str, Any]] = {}
    """Settings that differ from the defaults."""
    quick: ClassVar[dict[str, Any]] = {}
    """Settings for where it does not matter how well the model learned."""
    personal: ClassVar[bool] = True
    """Whether scores depend on the history."""
    companions: ClassVar[bool] = True
    """Whether an item of the history speaks for other items; a model of habits looks at the item alone."""
    tolerance: ClassVar[float] = 1e-5
    """Relative and absolute difference allowed between one row alone and the same row in a batch."""

    @pytest.fixture(scope="class")
    @classmethod
    def snapshot(cls) -> Snapshot:
        """The checkerboard, its arrays locked against writing."""
        return _locked(checkerboard_snapshot())

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, snapshot: Snapshot) -> Model:
        """The model under test."""
        return cls.fit(snapshot)

    @classmethod
    def fit(cls, snapshot: Snapshot, seed: int = 0) -> Model:
        """Fit the model under test."""
        return fit_model(cls.kind, snapshot, cls.config, Run(seed=seed))

    @pytest.fixture
    def batch(self, snapshot: Snapshot) -> SequenceBatch:
        """Everybody's history, locked."""
        return _locked_batch(_batch(snapshot))

    # -- configuration and storage -----------------------------------------------------------------------

    def test_config_survives_json(self, model: Model) -> None:
        """The fitted configuration comes back from JSON equal."""
        kind = model_kinds()[self.kind]
        again = msgspec.json.decode(msgspec.json.encode(model.config), type=kind.Config)
        assert again == model.config
        assert isinstance(model, kind)

    def test_unknown_settings_are_refused(self, snapshot: Snapshot) -> None:
        """A setting that does not exist is an error, not ignored."""
        with pytest.raises(InputError):
            fit_model(self.kind, snapshot, {**self.config, "no_such_setting": 1}, Run())

    def test_restore_gives_identical_scores(self, model: Model, batch: SequenceBatch) -> None:
        """Configuration and arrays are all there is to a model."""
        config = msgspec.json.decode(msgspec.json.encode(model.config), type=type(model.config))
        arrays = {name: array.copy() for name, array in model.arrays().items()}
        for array in arrays.values():
            assert array.dtype != object
            array.flags.writeable = False
        again = type(model).restore(config, arrays)
        np.testing.assert_array_equal(again.scores(batch), model.scores(batch))
        assert set(again.arrays()) == set(arrays)

    def test_same_seed_same_bits(self, model: Model, snapshot: Snapshot) -> None:
        """Fitting again gives the same arrays, to the bit."""
        again = self.fit(snapshot).arrays()
        for name, array in model.arrays().items():
            assert array.tobytes() == again[name].tobytes(), name

    def test_it_is_immutable(self, model: Model) -> None:
        """A fitted model cannot be changed."""
        with pytest.raises(AttributeError):
            setattr(model, "config", model.config)  # noqa: B010

    def test_too_little_to_learn_from(self) -> None:
        """One event or none: a model that scores, or an error that says why not."""
        for toy in (toy_snapshot([("u", "a")]), toy_snapshot([], items=["a", "b"])):
            try:
                scores = self.fit(toy).scores(_batch(toy, rows=toy.num_users))
            except ModelError:
                continue
            assert np.isfinite(scores[:, 1:]).all()

    # -- scores ------------------------------------------------------------------------------------------

    def test_scores_shape(self, model: Model, snapshot: Snapshot, batch: SequenceBatch) -> None:
        """(B, N + 1) float32, column 0 -inf, everything else finite."""
        _check_scores(model.scores(batch), snapshot.num_users, snapshot.num_items)

    def test_empty_history(self, model: Model, snapshot: Snapshot) -> None:
        """Somebody new gets finite scores, whatever else is in the batch."""
        history = History(
            "new", np.empty(0, np.int64), np.empty(0, np.uint8), [], np.empty(0, np.float32), []
        )
        empty = sequence_batch(_live(snapshot, [history]), np.array([0]), MAX_LENGTH)
        alone = model.scores(empty)
        _check_scores(alone, 1, snapshot.num_items)
        beside = model.scores(_stack(empty, _batch(snapshot, rows=3)))
        np.testing.assert_allclose(beside[:1, 1:], alone[:, 1:], rtol=self.tolerance, atol=self.tolerance)

    def test_unknown_items_are_harmless(self, model: Model, snapshot: Snapshot) -> None:
        """Items the model never heard of leave the answer as it is; as number 0 they do no harm."""
        known = [snapshot.items.id(2), snapshot.items.id(4)]
        plain = _live_batch(snapshot, known)
        strange = _live_batch(snapshot, [known[0], "never heard of", known[1], "nor of this"], [0, 1, 1, 2])
        np.testing.assert_array_equal(model.scores(strange), model.scores(plain))
        zeroed = replace(plain, item_BT=plain.item_BT * 0)
        _check_scores(model.scores(zeroed), 1, snapshot.num_items)

    def test_padding_changes_nothing(self, model: Model, batch: SequenceBatch) -> None:
        """A wider batch gives the same scores."""
        wide = _widened(batch, 7)
        np.testing.assert_allclose(
            model.scores(wide)[:, 1:], model.scores(batch)[:, 1:], rtol=self.tolerance, atol=self.tolerance
        )

    def test_batch_equals_single_rows(self, model: Model, snapshot: Snapshot, batch: SequenceBatch) -> None:
        """Nobody's answer depends on who else is asked about."""
        together = model.scores(batch)
        for row in range(0, snapshot.num_users, 7):
            alone = model.scores(sequence_batch(snapshot, np.array([row]), MAX_LENGTH))
            np.testing.assert_allclose(
                alone[0, 1:], together[row, 1:], rtol=self.tolerance, atol=self.tolerance
            )

    def test_checkerboard(self, model: Model, snapshot: Snapshot, batch: SequenceBatch) -> None:
        """The one item withheld from each person's colour comes back first, ahead of the other colour."""
        if not (self.personal and self.companions):
            pytest.skip("no item speaks for another: exempt from the checkerboard")
        scores = model.scores(batch)
        for row in range(snapshot.num_users):
            first, last = snapshot.ptr[row], snapshot.ptr[row + 1]
            scores[row, snapshot.item[first:last]] = -np.inf
        expected = [withheld_item(row, snapshot.num_items) for row in range(snapshot.num_users)]
        assert scores.argmax(axis=1).tolist() == expected

    def test_inputs_stay_untouched(self, snapshot: Snapshot, batch: SequenceBatch) -> None:
        """Fitting and scoring only read. (The arrays are locked as well: memory-mapped ones cannot be written.)"""
        before = [array.copy() for array in _arrays_of(snapshot, batch)]
        self.fit(snapshot).scores(batch)
        for old, new in zip(before, _arrays_of(snapshot, batch), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_memory_is_bounded(self) -> None:
        """Scoring takes a fixed block beside a few times its answer: it never holds rows by events by items.

        What numpy holds is counted; a network's runtime keeps its own books.
        """
        snapshot = markov_snapshot(users=60, items=WIDE_ITEMS, length=MAX_LENGTH)
        model = fit_model(self.kind, snapshot, {**self.config, **self.quick}, Run())
        batch = sequence_batch(snapshot, np.arange(MANY_ROWS) % snapshot.num_users, MAX_LENGTH)
        model.scores(_batch(snapshot, rows=1))  # whatever is loaded on first use
        tracemalloc.start()
        try:
            answer = model.scores(batch)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 8 * answer.nbytes + SCRATCH

    # -- companions and reasons --------------------------------------------------------------------------

    def test_related(self, model: Model, snapshot: Snapshot) -> None:
        """(Q, N + 1) float32; the first companions of an item are of its colour; number 0 does no harm."""
        items = np.arange(1, snapshot.num_items + 1)
        found = model.related(items)
        _check_scores(found, len(items), snapshot.num_items)
        _check_scores(model.related(np.array([0])), 1, snapshot.num_items)
        if self.personal and self.companions:
            others = np.where(items[:, None] == items, -np.inf, found[:, 1:])
            best = 1 + np.argsort(-others, axis=1)[:, :3]
            assert ((best - items[:, None]) % 2 == 0).mean() >= 0.9

    def test_affinity(self, model: Model, snapshot: Snapshot) -> None:
        """(T, K) float32, finite; an unknown history item speaks for nothing."""
        found = model.affinity(np.array([1, 0, 3]), np.array([5, 2]))
        assert found.shape == (3, 2)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        assert not found[1].any()
        assert model.affinity(np.empty(0, np.int64), np.array([1])).shape == (0, 1)
        if not self.personal:
            assert not found.any()

    def test_affinity_agrees_with_the_scores(self, model: Model, snapshot: Snapshot) -> None:
        """The items an event speaks for most are items whose score that event raises more than usual."""
        if not (self.personal and self.companions):
            pytest.skip("no item speaks for another")
        items = np.arange(1, snapshot.num_items + 1)
        nobody = model.scores(_live_batch(snapshot, []))[0, 1:]
        agreed = []
        for item in items:
            affinity = model.affinity(np.array([item]), items)[0]
            gain = model.scores(_live_batch(snapshot, [snapshot.items.id(int(item))]))[0, 1:] - nobody
            others = items != item
            best = np.argmax(np.where(others, affinity, -np.inf))
            agreed.append(gain[best] >= np.median(gain[others]))
        assert np.mean(agreed) >= 0.8


def _batch(snapshot: Snapshot, rows: int | None = None) -> SequenceBatch:
    number = snapshot.num_users if rows is None else rows
    return sequence_batch(snapshot, np.arange(number), MAX_LENGTH)


def _live(snapshot: Snapshot, histories: list[History]) -> Any:
    features = np.zeros((len(histories), snapshot.features.shape[1]), np.float32)
    return live_sequences(histories, snapshot.items, features)


def _live_batch(snapshot: Snapshot, items: list[str], days: list[int] | None = None) -> SequenceBatch:
    """The batch of one person who bought these items, on consecutive days unless said otherwise."""
    day = np.array(range(len(items)) if days is None else days, np.int64)
    start = int(snapshot.ts[0]) if snapshot.num_events else 0
    history = History(
        "p",
        start + day * 86_400_000_000,
        np.full(len(items), 11, np.uint8),
        list(items),
        np.full(len(items), np.nan, np.float32),
        [f"e{n}" for n in range(len(items))],
    )
    return sequence_batch(_live(snapshot, [history]), np.array([0]), MAX_LENGTH)


def _stack(first: SequenceBatch, second: SequenceBatch) -> SequenceBatch:
    """Two batches, one above the other."""
    width = max(first.item_BT.shape[1], second.item_BT.shape[1])
    parts = [_widened(part, width - part.item_BT.shape[1]) for part in (first, second)]
    joined = {
        f.name: np.concatenate([getattr(part, f.name) for part in parts])
        for f in fields(SequenceBatch)
        if getattr(first, f.name) is not None
    }
    return SequenceBatch(**joined)


def _widened(batch: SequenceBatch, columns: int) -> SequenceBatch:
    padded = {
        f.name: np.pad(getattr(batch, f.name), ((0, 0), (0, columns)))
        for f in fields(SequenceBatch)
        if f.name.endswith("_BT") and getattr(batch, f.name) is not None
    }
    return replace(batch, **padded)


def _arrays_of(*holders: Any) -> Iterator[npt.NDArray[Any]]:
    for holder in holders:
        for f in fields(holder):
            value = getattr(holder, f.name)
            if isinstance(value, np.ndarray):
                yield value


def _locked(snapshot: Snapshot) -> Snapshot:
    for array in _arrays_of(snapshot):
        array.flags.writeable = False
    return snapshot


def _locked_batch(batch: SequenceBatch) -> SequenceBatch:
    for array in _arrays_of(batch):
        array.flags.writeable = False
    return batch


def _check_scores(scores: npt.NDArray[Any], rows: int, num_items: int) -> None:
    assert scores.shape == (rows, num_items + 1)
    assert scores.dtype == np.float32
    assert (scores[:, 0] == -np.inf).all()
    assert np.isfinite(scores[:, 1:]).all()
