"""Plans of new interests by a language model: asked ahead of time, once for everybody who holds the same.

What leaves the shop is the names of its interests and which few of them are held together by several people who allow
their data to personalise. No ids, no attributes, no texts, no counts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from penchant.core import Ints, Progress, Vocabulary
from penchant.core.errors import ModelError, NotFound, ServiceError, StorageError
from penchant.engine import _interest_requests as ir
from penchant.engine._batch import bucket_histories
from penchant.engine._guide import Guide
from penchant.engine._interests import case_means
from penchant.engine._people import may
from penchant.engine._plan_book import Held, PlanBook, Plans, load_plans
from penchant.engine._planner import Asker, Budget, BudgetSpentError, PlannerSettings
from penchant.engine._protocol import take_snapshot
from penchant.engine._serving import Serving
from penchant.models import (
    SYSTEM,
    PlanRefusedError,
    Wording,
    choose_weight,
    interests_taken,
    recent_sets,
    tokens_at_most,
)

if TYPE_CHECKING:
    from penchant.engine._shop import Shop
    from penchant.models import InterestMap, PlanTest

_IN_VAIN = 3  # questions without an answer, one after another, after which nothing more is asked


@dataclass
class _Told:
    """What became of the questions of one run."""

    asked: int = 0
    dropped: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    note: str | None = None


@dataclass(frozen=True)
class _Answer:
    """What became of one question: a plan, or why there is none."""

    held: Held
    planned: Sequence[int] = ()
    dropped: int = 0
    refused: str | None = None
    failed: ServiceError | None = None
    spent: BudgetSpentError | None = None


def plan(shop: Shop, request: ir.PlanRequest, progress: Progress) -> ir.PlanReport:
    """Ask for what has no plan yet, the sets of most people first; then find how much plans should count.

    Raises:
        InputError: No language model is set, or its settings are incomplete.
        NotFound: No map of interests is trained.
        ServiceError: The model gives no answers; the plans so far are kept.
    """
    started, settings = time.perf_counter(), shop.config.planner
    settings.check()
    loaded = Serving(shop).interests
    if loaded is None:
        raise NotFound("no map of interests is trained", hint="run `penchant train` first")
    drawn: InterestMap = loaded.model
    wording, book = Wording(drawn.names, settings.plans), PlanBook(shop.path)
    guide = Guide(shop.config.interests, shop.config.rerank, loaded.items, drawn, loaded.items)
    book.expire(wording)
    sets, people = _held_sets(shop, guide, settings, progress)
    there = book.suggestions(wording, settings.name)
    waiting = [held for held in sets if held not in there][: request.most]
    budget = Budget(settings, book.spent(shop.clock()))
    before, told = budget.spent, _Told()
    if request.dry_run:
        return _forecast(settings, wording, budget, waiting, sets, people, len(there))
    with closing(settings.open()) as model:
        run = _Run(shop, book, wording, Asker(model, settings, budget), settings, loaded.artifact.id)
        run.ask(waiting, told, progress)
    test = _weigh(shop, drawn, loaded.items, load_plans(shop.path, settings, wording.names), progress)
    book.weigh(wording, settings.name, 0.0 if test is None else test.weight)
    plans, spent = load_plans(shop.path, settings, wording.names), budget.spent
    left = sum(held not in plans.suggestions for held in sets)
    return ir.PlanReport(
        model=settings.name,
        sets=len(sets),
        people=people,
        asked=told.asked,
        planned=len(sets) - left,
        waiting=left,
        refused=dict(told.refused),
        dropped=told.dropped,
        input_tokens=spent.input_tokens - before.input_tokens,
        output_tokens=spent.output_tokens - before.output_tokens,
        cost=round(spent.cost - before.cost, 6),
        weight=plans.weight,
        metrics={} if test is None else _metrics(test),
        note=told.note or (_UNMEASURED if test is None and settings.weight == "auto" else None),
        seconds=round(time.perf_counter() - started, 1),
    )


_UNMEASURED = (
    "too few people of the newest fifth of the log held what plans were made for to measure what they add, so they "
    "count nothing; set weight under [planner] to count them all the same"
)


def _held_sets(
    shop: Shop, guide: Guide, settings: PlannerSettings, progress: Progress
) -> tuple[list[Held], int]:
    """The sets of interests that enough people hold or once held, and how many people that are.

    What people held on their way counts, since others come the same way: whoever takes up a first interest tomorrow
    finds a plan. Those of most people come first.
    """
    count: Counter[Held] = Counter()
    people: list[bytes] = []
    buckets = shop.store.num_buckets
    for bucket in range(buckets):
        progress("looking up what people hold", bucket, buckets, {})
        for history in bucket_histories(shop, bucket, None, shop.config.serve.max_history):
            if may(shop, history.subject, "personalise"):
                held_H = guide.held(history)
                people.append(held_H.astype(np.uint16).tobytes())  # packed: there may be millions
                count.update(_sets_ever(held_H, settings.named))
    enough = sorted((-n, held) for held, n in count.items() if n >= settings.people)
    sets = [held for _, held in enough]
    # Whoever is in a set was once in that of its last interest alone.
    alone = np.array([held[0] for held in sets if len(held) == 1], np.uint16)
    return sets, sum(bool(np.isin(np.frombuffer(own, np.uint16), alone).any()) for own in people)


def _sets_ever(held_H: Ints, named: int) -> set[Held]:
    """Every set that a person could be asked about by, from their first interest on."""
    return {held for end in range(1, len(held_H) + 1) for held in recent_sets(held_H[:end], named)}


def _forecast(
    settings: PlannerSettings,
    wording: Wording,
    budget: Budget,
    waiting: Sequence[Held],
    sets: Sequence[Held],
    people: int,
    planned: int,
) -> ir.PlanReport:
    """What a run would ask, and what that costs at most; nothing is asked."""
    questions = [wording.question(held) for held in waiting]
    tokens = sum(tokens_at_most(SYSTEM, question) for question in questions)
    answers = len(questions) * settings.answer_tokens
    return ir.PlanReport(
        model=settings.name,
        sets=len(sets),
        people=people,
        asked=0,
        planned=planned,
        waiting=len(questions),
        input_tokens=tokens,
        output_tokens=answers,
        cost=round(budget.price(tokens, answers), 6),
        example=f"{SYSTEM}\n\n{questions[0]}" if questions else None,
        note="nothing was asked; tokens and cost are what the questions may take at most",
    )


@dataclass(frozen=True)
class _Run:
    """One run of questions: threads ask, this one reads, keeps and counts."""

    shop: Shop
    book: PlanBook
    wording: Wording
    asker: Asker
    settings: PlannerSettings
    map_id: str

    def ask(self, waiting: Sequence[Held], told: _Told, progress: Progress) -> None:
        """Ask for some sets. What was answered is kept at once, and so also when the run is stopped.

        Raises:
            ServiceError: The model refuses to answer at all, or was asked in vain several times running.
        """
        task, vain = "asking the language model", 0
        progress(task, 0, len(waiting), {})
        with closing(self._answers(waiting)) as answers:
            for answer in answers:
                if answer.spent is not None:
                    told.note = f"{answer.spent}; the rest waits for tomorrow"
                    continue
                told.asked += 1
                told.dropped += answer.dropped
                if not answer.planned:
                    told.refused[answer.refused or "no answer"] += 1
                vain = vain + 1 if answer.failed is not None else 0
                if answer.failed is not None and (not answer.failed.again or vain >= _IN_VAIN):
                    raise answer.failed
                progress(task, told.asked, len(waiting), {"refused": float(told.refused.total())})

    def _answers(self, waiting: Sequence[Held]) -> Generator[_Answer]:
        """Answers as they come in, kept already. Whoever stops listening stops the questions."""
        todo, under_way = iter(waiting), set[Future[_Answer]]()
        # llama.cpp answers one question after another, in the order of the prompts that it still knows.
        at_once = 1 if self.settings.llm == "gguf" else self.settings.at_once
        with ThreadPoolExecutor(at_once, "penchant-planner") as pool:
            try:
                while True:
                    for held in todo:
                        under_way.add(pool.submit(self._answer, held))
                        if len(under_way) >= 2 * at_once:
                            break
                    if not under_way:
                        return
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    answers = [one.result() for one in done]
                    self._keep(answers)
                    if any(answer.spent is not None for answer in answers):
                        todo = iter(())  # what is under way is heard to its end
                    yield from answers
            finally:
                self.asker.stop.set()
                pool.shutdown(cancel_futures=True)
                self._keep([one.result() for one in under_way if not one.cancelled()])  # they are paid for

    def _keep(self, answers: Sequence[_Answer]) -> None:
        found = [(answer.held, answer.planned) for answer in answers if answer.planned]
        spent = self.asker.budget.spent
        self.book.keep(self.wording, self.settings.name, self.map_id, self.shop.clock(), found, spent)

    def _answer(self, held: Held) -> _Answer:
        """Ask for one set and read the answer strictly; in a thread."""
        try:
            said = self.asker.ask(SYSTEM, self.wording.question(held), self.wording.schema(held))
            planned, dropped = self.wording.read(said.text, held)
        except PlanRefusedError as error:
            return _Answer(held, refused=str(error))
        except ServiceError as error:
            return _Answer(held, failed=error)
        except BudgetSpentError as error:
            return _Answer(held, spent=error)
        return _Answer(held, planned, dropped)


def _weigh(
    shop: Shop, drawn: InterestMap, items: Vocabulary, plans: Plans, progress: Progress
) -> PlanTest | None:
    """What plans add to what the log says of the next interest; None where too few people tell."""
    if not plans.suggestions:
        return None
    try:
        snapshot = take_snapshot(shop, progress)
    except ModelError:
        return None
    progress("measuring what the plans add", 0, 1, {})
    member_NL = drawn.member_NL[np.r_[0, items.numbers(snapshot.items.ids)]]

    def planned(held_H: Ints) -> Sequence[int]:
        found = plans.of(held_H)
        return () if found is None else found.planned

    test = choose_weight(
        drawn,
        interests_taken(snapshot, member_NL),
        planned,
        lambda gain_C, person_C: case_means({"gain": gain_C}, person_C)["gain"].low,
    )
    progress("measuring what the plans add", 1, 1, {})
    return test


def _metrics(test: PlanTest) -> dict[str, Any]:
    columns = {
        "next interest log loss": test.plain_log_loss_C,
        "with plans log loss": test.log_loss_C,
        "log loss of plans against none": test.log_loss_C - test.plain_log_loss_C,
        "next interest in 3": test.plain_among_3_C,
        "with plans in 3": test.among_3_C,
    }
    return case_means(columns, test.person_C)


def forget_plans(shop: Shop, subject: str) -> int:
    """Drop the plans for every set of two or more interests that a person ever held together; returns how many went.

    Such a set was held by several people, and the next `plan` asks again where enough others still hold it. The plan
    for a single interest says nothing of anybody and stays.
    """
    book = PlanBook(shop.path)
    if not book.path.exists():
        return 0
    try:
        return _forget_plans(shop, book, subject)
    except StorageError:  # nobody can read it: it goes whole, for an erasure must not wait for it
        book.path.unlink(missing_ok=True)
        return 0


def _forget_plans(shop: Shop, book: PlanBook, subject: str) -> int:
    loaded, settings = Serving(shop).interests, shop.config.planner
    if loaded is None:
        return book.expire(None)
    wording = Wording(loaded.model.names, settings.plans)
    guide = Guide(shop.config.interests, shop.config.rerank, loaded.items, loaded.model, loaded.items)
    held_H = guide.held(shop.store.history(subject, shop.config.serve.max_history))
    sets = sorted(held for held in _sets_ever(held_H, settings.named) if len(held) > 1)
    return book.expire(wording) + book.forget(wording, sets)
