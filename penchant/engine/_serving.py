"""What answers requests: the promoted model beside the catalogue, kept fresh without a restart."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import (
    ASKED_CODES,
    TARGET_KINDS,
    WISH_KINDS,
    Bools,
    Candidates,
    Event,
    EventKind,
    Floats,
    History,
    Ints,
    Model,
    Searcher,
    SequenceBatch,
    Target,
    Vocabulary,
)
from penchant.core.errors import ArtifactError, InputError, StorageError
from penchant.data import item_values, live_sequences, sequence_batch
from penchant.engine._answer_ids import is_taught, plain_history
from penchant.engine._canary import check_model
from penchant.engine._compile import Kind
from penchant.engine._explore import Exploration
from penchant.engine._facts import gather_facts
from penchant.engine._follow import beginning, take_up
from penchant.engine._guide import Guide
from penchant.engine._index import index_note
from penchant.engine._people import history_of, willing
from penchant.engine._plan_book import PlanBook, Plans, load_plans
from penchant.engine._promotion import Answering, Pointer, answering, read_pointer, take_back
from penchant.engine._rules import RuleBook, TableFields
from penchant.engine._sight import sight_of
from penchant.engine._stock import same_but_for_stock
from penchant.engine._trial import Trials
from penchant.models import INDEX_ITEMS, best_allowed, best_of, expected_value

if TYPE_CHECKING:
    from penchant.engine._follow import Follower
    from penchant.engine._search import Meanings
    from penchant.engine._search_index import SearchIndex
    from penchant.engine._shelves import Counts
    from penchant.engine._shop import Shop

_SEARCHED_ITEMS = (
    20_000  # from here on one person's best are searched for; below, a score for every item costs no more
)
log = logging.getLogger("penchant.serving")
_UNMET = 20  # candidates that nobody has met
_LOOK_EVERY = 0.5  # seconds between looks at the promotion pointer and the catalogue


@dataclass(frozen=True, eq=False)
class Shelf:
    """The catalogue in the order of a vocabulary. Row n is item number n; row 0 is no item."""

    table: pa.Table  # (N + 1) rows, CATALOG_SCHEMA; nulls where the catalogue lacks the item
    offered_N: Bools  # (N + 1,) in the catalogue (any item where the shop has none) and not out of stock

    @cached_property
    def titles(self) -> list[str | None]:
        """Title of each item number."""
        return self.table["title"].to_pylist()  # type: ignore[no-any-return]

    @cached_property
    def categories(self) -> list[str | None]:
        """Category path of each item number."""
        return self.table["category"].to_pylist()  # type: ignore[no-any-return]

    @cached_property
    def _fields(self) -> TableFields:
        return TableFields(self.table)

    @cached_property
    def mask(self) -> Callable[[tuple[str, ...]], Bools]:
        """Which item numbers meet some filters; remembered, since surfaces repeat theirs."""
        return lru_cache(maxsize=256)(self._fields.mask)

    @cached_property
    def rules(self) -> Callable[[tuple[str, ...], tuple[str, ...], tuple[tuple[str, Kind], ...]], RuleBook]:
        """Filters and rules fitted to this catalogue, with the kinds of what is known of people; remembered."""

        @lru_cache(maxsize=256)
        def rules(
            filters: tuple[str, ...], rules: tuple[str, ...], people: tuple[tuple[str, Kind], ...]
        ) -> RuleBook:
            return RuleBook(self._fields.about(dict(people)), filters, rules)

        return rules

    @cached_property
    def search(self) -> SearchIndex:
        """The words of the catalogue; made when somebody searches."""
        from penchant.engine._search_index import SearchIndex

        return SearchIndex(self.table)


def shelve(items: Vocabulary, catalog: pa.Table, *, out_of_stock: bool) -> Shelf:
    """Bring the catalogue into the order of a vocabulary."""
    rows = pc.index_in(items.array, value_set=catalog["id"].combine_chunks())
    table = catalog.take(pa.concat_arrays([pa.nulls(1, rows.type), rows]))
    listed_N = np.r_[False, np.asarray(pc.is_valid(rows))]
    offered_N = listed_N if catalog.num_rows else np.r_[False, np.ones(len(items), np.bool_)]
    if not out_of_stock:
        gone = pc.fill_null(pc.equal(table["availability"], "out_of_stock"), False)
        offered_N = offered_N & ~np.asarray(gone)
    return Shelf(table, offered_N)


@dataclass(frozen=True, eq=False)
class Ranker:
    """One consistent state that a request works with: model, vocabulary, shelf, exploration."""

    model: Model | None
    model_id: str
    kind: str
    items: Vocabulary
    shelf: Shelf
    count_N: Floats | None  # how often people turned to each item, where there is no model
    exploration: Exploration
    guide: Guide
    answering: Mapping[Target, Answering]
    degraded: bool
    note: str | None
    max_history: int

    def probabilities(self, score_N: Floats | None, item_K: Ints, target: Target) -> list[float | None]:
        """Chance of some items to be what the person turns to next, by all scores; None where nobody knows."""
        calibration = self.answering[target].calibration
        if calibration is None or score_N is None or not len(item_K):
            return [None] * len(item_K)
        return calibration.of_items(score_N, item_K).tolist()  # type: ignore[no-any-return]

    @cached_property
    def value_N(self) -> Floats | None:
        """What each item brings, (N + 1,); None where the catalogue has no prices."""
        return item_values(self.shelf.table, self.items)

    def check_prices(self) -> None:
        """Can value rank?

        Raises:
            InputError: The catalogue has no prices.
        """
        if self.value_N is None:
            hint = "read a catalogue with price, and cost where known, or ask with objective=interest"
            raise InputError("value needs prices, and the catalogue has none", hint=hint, path="$.objective")

    @cached_property
    def ids_N(self) -> npt.NDArray[np.object_]:
        """The id of each item number, (N + 1,)."""
        return np.array(["", *self.items.ids], dtype=np.object_)

    def scores(self, histories: Sequence[History], target: Target) -> Floats:
        """Score all items for some people, asked for one kind of event: (B, N + 1) float32."""
        if self.model is None:
            assert self.count_N is not None
            scores_BN = np.tile(self.count_N.astype(np.float32), (len(histories), 1))
            scores_BN[:, 0] = -np.inf
            return scores_BN
        return self.model.scores(self._batch(histories, target))

    @property
    def searches(self) -> bool:
        """Whether one person's best items are found without a score for each item: worth it where there are many."""
        return len(self.items) >= INDEX_ITEMS and isinstance(self.model, Searcher)

    def candidates(
        self,
        history: History,
        allowed_N: Bools,
        limit: int,
        target: Target,
        by_value: bool,
        score_N: Floats | None = None,
    ) -> Candidates:
        """One person's best allowed items, at most ``limit``, in item order; ``score_N``: where they are known.

        ``by_value`` ranks them by what they are expected to bring. The twenty best of the items that nobody has met are
        added, below all others where they did not reach them: exploring could not show them otherwise.
        """
        unmet_N = self._unmet_N & allowed_N
        meets = bool(unmet_N.any())
        if score_N is None and self.searches:
            assert isinstance(self.model, Searcher)
            batch = self._batch([history], target)
            item_K, mean_K = self.model.best(batch, allowed_N, limit)
            if meets:
                new_K, new_mean_K = self.model.best(batch, unmet_N, _UNMET)
                item_K, first_K = np.unique(np.r_[item_K, new_K], return_index=True)
                mean_K = np.r_[mean_K, new_mean_K][first_K]
        else:
            score_N = self.scores([history], target)[0] if score_N is None else score_N
            if not (meets or by_value):
                return self._proposed(*best_allowed(score_N, allowed_N, limit))
            item_K = np.flatnonzero(allowed_N & np.isfinite(score_N))
            mean_K = score_N[item_K].astype(np.float32)
        if by_value:
            assert self.value_N is not None, "check_prices() first"
            mean_K = expected_value(mean_K, self.value_N[item_K], self.answering[target].chance)
        best_K, best_mean_K = best_of(item_K, mean_K, limit)
        met = int(unmet_N[best_K].sum())
        unmet_N[best_K] = False
        left = unmet_N[item_K]
        if left.any() and (missing := _UNMET - met) > 0:
            new_K, new_mean_K = best_of(item_K[left], mean_K[left], missing)
            bar = np.nextafter(best_mean_K.min(), np.float32(-np.inf))
            new_mean_K = np.minimum(new_mean_K + (bar - new_mean_K.max()), bar)  # their order stays
            order = np.argsort(np.r_[best_K, new_K])
            best_K, best_mean_K = np.r_[best_K, new_K][order], np.r_[best_mean_K, new_mean_K][order]
        return self._proposed(best_K, best_mean_K)

    def _proposed(self, item_K: npt.NDArray[np.int64], mean_K: npt.NDArray[np.float32]) -> Candidates:
        return Candidates(item_K, mean_K, np.zeros_like(mean_K), self.model_id)

    @cached_property
    def _unmet_N(self) -> npt.NDArray[np.bool_]:
        """Items that nobody had met when the model counted, and whose content speaks for them, (N + 1,)."""
        from penchant.models import Sequence as SequenceModel

        unmet_N = np.zeros(len(self.items) + 1, np.bool_)
        if isinstance(self.model, SequenceModel):
            unmet_N[self.model.unmet_J] = True
        return unmet_N

    def _batch(self, histories: Sequence[History], target: Target) -> SequenceBatch:
        return live_batch(histories, self.items, self.max_history, target)


def live_batch(
    histories: Sequence[History], items: Vocabulary, max_history: int, target: Target
) -> SequenceBatch:
    """What a model reads of some people."""
    features = np.zeros((len(histories), 0), np.float32)
    sequences = live_sequences(histories, items, features)
    rows = np.arange(len(histories))
    return sequence_batch(sequences, rows, max_history, asked=ASKED_CODES[target])


def person_vectors(model: Any, items: Vocabulary, shop: Shop) -> Callable[[History], npt.NDArray[np.float32]]:
    """A person's interests by a sequence model, (R, D), for what the shop usually asks."""

    def vectors(history: History) -> npt.NDArray[np.float32]:
        batch = live_batch([history], items, shop.config.serve.max_history, shop.config.target)
        found: npt.NDArray[np.float32] = model.interests(batch)[0][0]
        return found

    return vectors


class _NewModelFailedError(Exception):
    """A model that was just promoted cannot serve, while the one before it does."""

    def __init__(self, artifact_id: str, why: str) -> None:
        super().__init__(why)
        self.artifact_id, self.why = artifact_id, why


class Serving:
    """Holds the current ``Ranker`` and replaces it when another model is promoted or the catalogue changes."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self._lock = threading.Lock()
        self._looked = 0.0
        self._stamp: tuple[Any, ...] | None = None
        self._ranker: Ranker | None = None
        self._catalog: pa.Table | None = None
        self._companions: Ranker | None = None
        self._usual: tuple[Any, dict[str, float]] | None = None
        self._beside: dict[str, Any] = {}  # artifacts that serve beside the model, by what they are
        self._plans: tuple[int, int] | None = None  # stamp of the book of plans
        self.counts: tuple[Vocabulary, Counts] | None = None  # of the shelves
        self._meanings: tuple[Shelf, bool, Meanings | None] | None = None
        self.kept = False  # somebody else looks for what is new, so that no request waits for it
        self.recent: deque[str] = deque(maxlen=16)  # people served lately: the canaries of the next model
        self.trials = Trials()
        # What served before the model on trial, and until when.
        self._before: tuple[Ranker, float] | None = None
        self._key: str | None = None  # what all that share the shop call the beginning of what they learn
        self.follower: Follower | None = None  # takes up what other processes that share the shop stored

    @property
    def ranker(self) -> Ranker:
        """The current state; looks for a newer one at most twice a second."""
        if (
            self._ranker is None
            or self._stamp is None
            or (not self.kept and time.monotonic() - self._looked > _LOOK_EVERY)
        ):
            self.refresh()
            if not self.kept:
                self.follow()
                self.judge()
        assert self._ranker is not None
        return self._ranker

    @property
    def companions(self) -> Ranker:
        """The state that answers ``similar``: another model where the promoted one only knows popularity."""
        ranker = self.ranker
        if ranker.kind in ("popularity", "recent_popularity") and self._companions is not None:
            return self._companions
        return ranker

    def refresh(self) -> None:
        """Take up what has been promoted or changed since the last look."""
        with self._lock:
            if self.shop.store.shared and not self.kept:
                self.shop.store.follow()
            pointer = read_pointer(self.shop.artifacts)
            stamp = self._stamp_now(pointer)
            if stamp == self._stamp and self._ranker is not None:
                pass
            elif self._only_stock_moved(pointer):
                self._stamp = stamp
            else:
                try:
                    ranker = self._build(pointer)
                    if ranker.exploration.follows:
                        take_up(self, ranker)
                    self._put_on_trial(pointer, self._ranker, ranker)
                    self._ranker = ranker
                except _NewModelFailedError as failure:
                    pointer = self._take_back(failure) or pointer
                self._companions = self._load_companions(pointer)
                self._stamp = (pointer, *stamp[1:3], self._stamp_now(pointer)[3])
                give_back_memory()
            if self._ranker is not None:
                self._take_up_plans(self._ranker)
            self._looked = time.monotonic()

    def _put_on_trial(self, pointer: Pointer | None, old: Ranker | None, new: Ranker) -> None:
        """Watch a model that was just promoted over another; whatever else is built anew leaves a trial as it is."""
        if old is None or old.model_id == new.model_id:
            return
        self._before = None
        self.trials.end()
        hours = self.shop.config.serve.trial_hours
        if (
            hours
            and pointer is not None
            and new.model_id == pointer.promoted
            and self._follows_on(pointer, old)
        ):
            self._before = old, time.monotonic() + hours * 3600
            self.trials.begin(new.model_id, old.model_id)

    @staticmethod
    def _follows_on(pointer: Pointer, old: Ranker) -> bool:
        """Whether what answered was the model before the promoted one, and not one that was rolled back."""
        return old.model is not None and old.model_id in pointer.previous[:1]

    def judge(self) -> None:
        """Take back a model on trial that surely does worse than the one before it; end a trial that is over."""
        if self._before is None:
            return
        if time.monotonic() >= self._before[1]:
            self._before = None
            self.trials.end()
            return
        new, why = self.trials.new, self.trials.verdict()
        if new is not None and why is not None:
            self._ranker = self._before[0]  # at once; then with what was learned meanwhile
            self._take_back(_NewModelFailedError(new, why))
            self._before = None
            self.trials.end()
            self.refresh()

    def failed(self, ranker: Ranker) -> Ranker | None:
        """Count that a model failed to answer; gives what served before it while it is on trial, marked as degraded."""
        self.trials.failed(ranker.model_id)
        now, before = self._ranker, self._before
        if now is not None and now.model_id != ranker.model_id:  # taken back meanwhile
            return now
        if before is None or ranker.model_id != self.trials.new:
            return None
        note = "the promoted model failed at this answer; the one before it answers"
        return replace(before[0], degraded=True, note=note)

    def _stamp_now(self, pointer: Pointer | None) -> tuple[Any, ...]:
        """What the current state is made from: pointer, catalogue, erasures, and where the log begins to be read."""
        store = self.shop.store
        begun = None if self._key is None else store.agreed(self._key)
        return pointer, _stamp_of(self.shop), store.remade, begun

    def _take_up_plans(self, ranker: Ranker) -> None:
        """Look up the plans of the language model, where they were made or dropped since."""
        stamp = PlanBook(self.shop.path).stamp
        if ranker.guide.map is not None and (stamp != self._plans or not ranker.guide.plans.model):
            self._plans = stamp
            try:
                plans = load_plans(self.shop.path, self.shop.config.planner, ranker.guide.map.names)
            except StorageError as error:  # answers go on without them
                log.error("%s", error.message)
                plans = Plans(self.shop.config.planner.name)
            ranker.guide.plans = plans

    def _only_stock_moved(self, pointer: Pointer | None) -> bool:
        """Take up what changed in the stock; False where more than that did, and everything has to be made anew."""
        old, self._catalog = self._catalog, self.shop.store.catalog()
        if self._stamp is None or self._ranker is None or old is None:
            return False
        if (self._stamp[0], *self._stamp[2:]) != (pointer, *self._stamp_now(pointer)[2:]):
            return False
        if not same_but_for_stock(old, self._catalog):
            return False
        self._ranker = self._restocked(self._ranker, self._catalog)
        if self._companions is not None:
            self._companions = self._restocked(self._companions, self._catalog)
        return True

    def _restocked(self, ranker: Ranker, catalog: pa.Table) -> Ranker:
        shelf = shelve(ranker.items, catalog, out_of_stock=self.shop.config.serve.out_of_stock)
        if "search" in ranker.shelf.__dict__:  # the texts are the same
            shelf.__dict__["search"] = ranker.shelf.search
        return replace(ranker, shelf=shelf)

    def _take_back(self, failure: _NewModelFailedError) -> Pointer | None:
        """Keep the model that serves: one that fails the canary never answers anybody, and is kept to be looked at."""
        log.error("model %s was taken back: %s", failure.artifact_id, failure.why)
        if self.shop.store.readonly:
            return None
        return take_back(self.shop.artifacts, failure.artifact_id, failure.why)

    def _serves(self, pointer: Pointer) -> bool:
        """Whether what answers now is the model that served before the promoted one."""
        ranker = self._ranker
        return ranker is not None and ranker.model is not None and ranker.model_id in pointer.previous[:1]

    def _build(self, pointer: Pointer | None) -> Ranker:
        catalog = self.shop.store.catalog()
        if pointer is None or pointer.promoted is None:
            return self._without_model(catalog, "no model is trained yet: showing what is popular")
        note = None
        for artifact_id in (pointer.promoted, *pointer.previous, *pointer.fallback):
            try:
                return self._load(artifact_id, catalog, degraded=note is not None, note=note)
            except ArtifactError as error:
                if artifact_id == pointer.promoted and self._serves(pointer):
                    raise _NewModelFailedError(artifact_id, error.message) from error
                note = note or f"the promoted model cannot be used ({error.message}); an older one answers"
        return self._without_model(catalog, "no trained model can be used: showing what is popular")

    def _load(
        self,
        artifact_id: str,
        catalog: pa.Table,
        *,
        degraded: bool = False,
        note: str | None = None,
        serving: Ranker | None = None,
    ) -> Ranker:
        from penchant.engine._content import with_newcomers
        from penchant.training import load_artifact

        config = self.shop.config
        loaded = load_artifact(self.shop.artifacts, artifact_id)
        model, items = with_newcomers(self.shop, loaded, catalog)
        shelf = shelve(items, catalog, out_of_stock=config.serve.out_of_stock)
        people = [history_of(self.shop, subject) for subject in list(self.recent)]
        check_model(model, items, artifact_id, people, shelf.offered_N)
        guide, exploration = self._policy(items, catalog, model, serving=serving)
        return Ranker(
            model=model,
            model_id=loaded.artifact.id,
            kind=loaded.artifact.kind,
            items=items,
            shelf=shelf,
            count_N=None,
            exploration=exploration,
            guide=guide,
            answering=answering(loaded.artifact.facts, config.seen),
            degraded=degraded,
            note=note or index_note(loaded.model, loaded.artifact.facts),
            max_history=config.serve.max_history,
        )

    def _policy(
        self, items: Vocabulary, catalog: pa.Table, model: Model | None, *, serving: Ranker | None = None
    ) -> tuple[Guide, Exploration]:
        """What is known of people and of outcomes; that of ``serving`` where there is one."""
        if serving is not None:
            return serving.guide, serving.exploration
        config, interests = self.shop.config, self.interests
        known = () if interests is None else (interests.model, interests.items)
        up_to = self._beginning(catalog)
        guide = Guide(config.interests, config.rerank, items, *known)
        guide.replay(self.shop, up_to)
        facts = gather_facts(self.shop, items, catalog, vectors=model is not None, up_to=up_to)
        vectors = person_vectors(model, items, self.shop)
        sight = sight_of(config.explore.learner, facts, guide, model, vectors)
        follows = up_to is not None
        exploration = Exploration(config.explore, items, facts, guide.outcome, sight, follows=follows)
        exploration.replay(self.shop, up_to)
        return guide, exploration

    def _beginning(self, catalog: pa.Table, at_least: int | None = None) -> int | None:
        """Up to where the log is read at once, in every process that shares the shop; None for all of it, in one."""
        if not self.shop.store.shared:
            return None
        self._key = beginning(self.shop, read_pointer(self.shop.artifacts), catalog)
        return self.shop.store.agree(self._key, at_least=at_least)

    def follow(self) -> None:
        """Learn what has come in, from all processes that share the shop."""
        ranker = self._ranker
        if ranker is None or not ranker.exploration.follows:
            return
        unknown = take_up(self, ranker)
        while unknown is not None:
            with self._lock:
                self._beginning(self.shop.store.catalog(), at_least=unknown)
                self._stamp = None
            self.refresh()
            assert self._ranker is not None
            unknown = take_up(self, self._ranker)

    def _load_companions(self, pointer: Pointer | None) -> Ranker | None:
        if pointer is None or pointer.companions is None:
            return None
        try:
            return self._load(pointer.companions, self.shop.store.catalog(), serving=self._ranker)
        except ArtifactError:
            return None  # `similar` then asks the promoted model

    def _without_model(self, catalog: pa.Table, note: str) -> Ranker:
        """Popularity counted from the events at rest, kept up to date by ``observed``."""
        items, count_N = count_popularity(self.shop, catalog, self._beginning(catalog))
        guide, exploration = self._policy(items, catalog, None)
        return Ranker(
            model=None,
            model_id="popularity",
            kind="popularity",
            items=items,
            shelf=shelve(items, catalog, out_of_stock=self.shop.config.serve.out_of_stock),
            count_N=count_N,
            exploration=exploration,
            guide=guide,
            answering=answering({}, "allow"),
            degraded=True,
            note=note,
            max_history=self.shop.config.serve.max_history,
        )

    @property
    def tags(self) -> Any | None:
        """The artifact of the interest tags that serve; None where there are none, or damaged ones."""
        return self._promoted_beside("tags")

    @property
    def interests(self) -> Any | None:
        """The artifact of the map of interests that serves; None where there is none, or a damaged one."""
        return self._promoted_beside("interests")

    def _promoted_beside(self, name: Literal["tags", "interests"]) -> Any | None:
        """What serves beside the ranking model, read once for each promotion."""
        from penchant.training import load_artifact

        pointer = read_pointer(self.shop.artifacts)
        artifact_id = None if pointer is None else getattr(pointer, name)
        if artifact_id is None:
            return None
        if name not in self._beside or self._beside[name].artifact.id != artifact_id:
            try:
                self._beside[name] = load_artifact(self.shop.artifacts, artifact_id)
            except ArtifactError:
                return None
        return self._beside[name]

    def meanings(self, *, heavy: bool) -> Meanings | None:
        """The meanings of the catalogue's texts, read once for each version of it; None where there are none."""
        from penchant.engine._search import meanings

        shelf = self.ranker.shelf
        if self._meanings is None or self._meanings[:2] != (shelf, heavy):
            self._meanings = (shelf, heavy, meanings(self.shop, shelf.table, heavy=heavy))
        return self._meanings[2]

    def usual(self, count: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The shop's usual share of each tag; counted anew when the catalogue or the event table changed."""
        stamp = (_stamp_of(self.shop), self.shop.store.table_version())
        if self._usual is None or self._usual[0] != stamp:
            self._usual = (stamp, count())
        return self._usual[1]

    def forget(self) -> None:
        """Build everything anew at the next request: what was counted may have been erased."""
        with self._lock:
            self._stamp = self._usual = self.counts = None
            self._looked = 0.0

    def observed(self, events: Sequence[Event]) -> None:
        """Learn from live events that were just stored; where a log is followed, from that."""
        ranker = self._ranker
        if ranker is None:
            return
        self.trials.observed(events)
        if ranker.exploration.follows:
            if self.follower is None or any(event.kind in WISH_KINDS for event in events):
                self.follow()  # whoever said what they want sees it at once
            else:
                self.follower.wake.set()
        elif not self.learn(ranker, events):
            self._stamp = None
            self._looked = 0.0

    def learn(self, ranker: Ranker, events: Sequence[Event]) -> bool:
        """Learn from stored events; where popularity answers they count, and False tells of an item not known yet.

        What names one of our answers is learned as its outcome and not counted a second time.
        """
        ranker.guide.observed(events)
        events = [event for event in events if event.kind not in WISH_KINDS]
        ranker.exploration.observed(events)
        if ranker.count_N is None:
            return True
        for event in events:
            if event.item_id is None:
                continue
            number = ranker.items.number(event.item_id)
            if number == 0:
                return False
            if event.recommendation_id is None or not is_taught(event.recommendation_id):
                ranker.count_N[number] += 1
        return True


def give_back_memory() -> None:
    """Return to the system what building took and nobody holds any more: allocators would keep it for the process."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _stamp_of(shop: Shop) -> tuple[tuple[str, int, int], ...]:
    """Changes whenever the catalogue on disk does."""
    found = [(file.name, file.stat()) for file in sorted((shop.path / "catalog").glob("*"))]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)


def count_popularity(shop: Shop, catalog: pa.Table, up_to: int | None = None) -> tuple[Vocabulary, Floats]:
    """Count how often each item was turned to, from everything stored, or up to a number of the log."""
    counts: dict[str, int] = dict.fromkeys(catalog["id"].to_pylist(), 0)
    wanted = pa.array(sorted(EventKind(kind).value for kind in TARGET_KINDS))
    for bucket in range(shop.store.num_buckets):
        columns = ["subject", "item_id", "kind", "recommendation_id"]
        table = willing(shop, shop.store.scan(bucket=bucket, columns=columns, up_to=up_to))
        keep = pc.and_(pc.is_in(table["kind"], value_set=wanted), plain_history(table["recommendation_id"]))
        items = table.filter(keep)["item_id"].drop_null()
        for found in pc.value_counts(items.combine_chunks()).to_pylist():
            counts[found["values"]] = counts.get(found["values"], 0) + found["counts"]
    ids = sorted(counts)
    return Vocabulary(ids), np.array([0, *(counts[i] for i in ids)], np.float64)


def seen_numbers(ranker: Ranker, history: History) -> npt.NDArray[np.int64]:
    """Numbers of every item the person ever turned to."""
    return ranker.items.numbers(list(history.seen))
