"""The store against a plain dictionary, through random sequences of everything one can do."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from penchant.core import SEQUENCE_KINDS, TARGET_KINDS, Event, EventKind, subject_of
from penchant.core.errors import InputError
from penchant.store import _live, open_store
from penchant.store._hashing import Persons
from penchant.store._ids import IdIndex, Manifest, Run, merge_runs, probe, settle, sorted_pairs, write_run
from penchant.store._load import ACCEPT, ALREADY, CONFLICT, DUPLICATE, Known, Loader
from penchant.testing._store import T0, batch_of

USERS = ["a", "ab", "é", "anon:c1", "z"]
events = st.builds(
    lambda number, user, item, ts, kind: Event(
        kind=kind,
        event_id=f"e{number}",
        ts=T0 + ts,
        user_id=None if user.startswith("anon:") else user,
        anonymous_id=user[5:] if user.startswith("anon:") else None,
        item_id=item,
    ),
    st.integers(0, 40),
    st.sampled_from(USERS),
    st.sampled_from([None, "i1", "i2"]),
    st.integers(0, 6),
    st.sampled_from(["view", "purchase", "refund", "impression", "search"]).map(EventKind),
)
lists = st.lists(events, min_size=1, max_size=12)


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.kept = _live.WINDOW, _live._SLACK
        _live.WINDOW, _live._SLACK = 3, 6  # so that a few events overflow it
        self.store = open_store(self.folder / "shop")
        self.stored: dict[str, tuple[int, Event]] = {}  # event id -> (arrival, event)
        self.erased: set[str] = set()
        self.arrivals = 0

    def take(self, event: Event) -> str:
        if subject_of(event.user_id, event.anonymous_id) in self.erased:
            return "erased"
        if event.event_id in self.stored:
            return "duplicate" if self.stored[event.event_id][1] == event else "conflict"
        self.arrivals += 1
        self.stored[event.event_id] = (self.arrivals, event)
        return "stored"

    @rule(given=lists)
    def append(self, given: list[Event]) -> None:
        assert self.store.append(given) == [self.take(event) for event in given]

    @rule(given=lists, cut=st.integers(0, 12))
    def load(self, given: list[Event], cut: int) -> None:
        before = {key: event for key, (_, event) in self.stored.items()}
        words = [self.take(event) for event in given]
        parts = [part for part in (given[:cut], given[cut:]) if part]
        report = self.store.load([batch_of(part) for part in parts], source="s")
        first, already = set(), 0
        for event, word in zip(given, words, strict=True):
            if word == "duplicate" and before.get(event.event_id) == event and event.event_id not in first:
                first.add(event.event_id)
                already += 1
        duplicates = words.count("duplicate") - already
        reasons = sorted(report.refused["reason"].to_pylist())
        assert (report.accepted, report.erased) == (words.count("stored"), words.count("erased"))
        assert report.already_stored == already
        assert reasons == ["conflict"] * words.count("conflict") + ["duplicate"] * duplicates

    @rule()
    def compact(self) -> None:
        self.store.compact()

    @rule(user=st.sampled_from(["z", "anon:c1"]))
    def erase(self, user: str) -> None:
        self.store.erase(user)
        self.erased.add(user)
        self.stored = {
            k: v for k, v in self.stored.items() if subject_of(v[1].user_id, v[1].anonymous_id) != user
        }

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = open_store(self.folder / "shop")

    def expected(self) -> list[tuple[str, int, int, str]]:
        rows = [(subject_of(e.user_id, e.anonymous_id), e.ts, n, e.event_id) for n, e in self.stored.values()]
        return sorted(rows, key=lambda row: (row[0].encode(), *row[1:]))

    @rule(user=st.sampled_from(USERS))
    def history(self, user: str) -> None:
        """Models read what people did with items; what they were shown or searched for takes no place."""
        mine = [self.stored[row[3]][1] for row in self.expected() if row[0] == user]
        read = [e for e in mine if e.item_id is not None and e.kind in SEQUENCE_KINDS]
        for limit in (2, 200):  # within the window kept, and beyond it
            history = self.store.history(user, limit)
            assert history.event_id == [e.event_id for e in read][-limit:]
            assert history.seen == {e.item_id for e in read if e.kind in TARGET_KINDS}
            assert history.shown_item == [e.item_id for e in mine if e.item_id and e.kind == "impression"]

    @rule()
    def people(self) -> None:
        assert self.store.status().subjects == len({row[0] for row in self.expected()})

    @rule(since=st.integers(0, 6), as_of=st.integers(0, 7))
    def window(self, since: int, as_of: int) -> None:
        table = self.store.scan(since=T0 + since, as_of=T0 + as_of, columns=["event_id"])
        expected = [row[3] for row in self.expected() if T0 + since <= row[1] < T0 + as_of]
        assert table["event_id"].to_pylist() == expected

    @invariant()
    def same_events(self) -> None:
        if hasattr(self, "store"):
            assert self.store.scan(columns=["event_id"])["event_id"].to_pylist() == [
                r[3] for r in self.expected()
            ]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)
            _live.WINDOW, _live._SLACK = self.kept


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=8, stateful_step_count=14, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


# ---- the index and the judgement, by themselves ----------------------------------------------------------


def run_of(folder: Path, pairs: dict[int, int]) -> Run:
    ids, contents = np.array(list(pairs), np.uint64), np.array(list(pairs.values()), np.uint64)
    return write_run(folder, *sorted_pairs(ids, contents))


hashes = st.integers(0, 60) | st.integers(0, (1 << 64) - 1)


@given(
    st.lists(st.dictionaries(hashes, st.integers(0, 9), max_size=20), max_size=9),
    st.lists(hashes, max_size=30),
)
@settings(deadline=None, max_examples=30)
def test_index_is_a_dictionary(parts: list[dict[int, int]], queries: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, known, runs = Path(name), {}, []
        for part in parts:
            fresh = {k: v for k, v in part.items() if k not in known}
            known |= fresh
            runs, _ = settle(folder, [*runs, run_of(folder, fresh)], runs)
        wanted = np.unique(np.array(queries, np.uint64))
        found: dict[int, int] = {}
        for run in runs:
            hits, values = probe(folder, run, wanted)
            found |= dict(zip(wanted[hits].tolist(), values.tolist(), strict=True))
        assert found == {q: known[q] for q in set(queries) & set(known)}
        index = IdIndex(folder)
        index.use(Manifest(0, runs))
        assert [index.find(q) for q in queries] == [known.get(q) for q in queries]
        gone = np.array(sorted(set(queries)), np.uint64)
        rest = merge_runs(folder, runs, without=gone) if runs else None
        assert rest is None or rest.length == len(set(known) - set(queries))


@given(
    st.dictionaries(st.integers(0, 9), st.integers(0, 2), max_size=6),
    st.dictionaries(st.integers(0, 9), st.integers(0, 2), max_size=3),
    st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=12), max_size=4),
)
@settings(deadline=None, max_examples=40)
def test_judgement_is_first_wins(stored: dict, journal: dict, groups: list[list[tuple[int, int]]]) -> None:
    journal = {k: v for k, v in journal.items() if k not in stored}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = sorted_pairs(np.array(list(journal), np.uint64), np.array(list(journal.values()), np.uint64))
        loader = Loader(
            folder, folder, "t", "s", known=Known([run_of(folder, stored)] if stored else [], pairs),
            persons=Persons(b""), tombstones=set(), reserve=lambda n: 0, newest=None, cipher=None,
        )  # fmt: skip
        before, here = stored | journal, {}
        for group in groups:
            expected = []
            for key, content in group:
                first = before.get(key, here.get(key, content))
                if content != first:
                    expected.append(CONFLICT)
                elif key in here:
                    expected.append(DUPLICATE)
                else:
                    expected.append(ALREADY if key in before else ACCEPT)
                    here[key] = content
            ids = np.array([key for key, _ in group], np.uint64)
            contents = np.array([content for _, content in group], np.uint64)
            verdict = loader._judge(ids, contents)
            assert verdict.tolist() == expected
            loader.remember(ids, contents, verdict)
        loader.abort()


def test_a_wrong_batch_names_the_column(tmp_path: Path) -> None:
    batch = batch_of([Event(kind=EventKind.VIEW, event_id="e", ts=1, user_id="u")])
    with open_store(tmp_path / "shop") as store:
        for bad in (
            batch.drop_columns(["item_id"]),
            batch.set_column(1, "ts", pa.array(["soon"])),
            batch.set_column(0, "event_id", pa.array([None], pa.string())),
        ):
            with pytest.raises(InputError, match=r"item_id|ts|event_id"):
                store.load([batch, bad], source="s")
        assert store.scan().num_rows == 0
