"""The language model that plans new interests: its settings, and the manners in which it is asked.

Manners: so many questions at once, a minute and a day, so much money a day, and a pause before another try.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from penchant.core import Noun
from penchant.core.errors import InputError, ServiceError

if TYPE_CHECKING:
    from penchant.models import ChatModel, Said

_FIRST, _LONGEST = 1.0, 60.0  # seconds before the second try, at most between two


class PlannerSettings(Noun, frozen=True):
    """A language model that plans which new interests to try: the ``[planner]`` table. Nothing is asked unless set."""

    llm: Annotated[
        Literal["off", "openai", "gguf"],
        Meta(description="openai: any endpoint that speaks as OpenAI's does; gguf: a model in this process"),
    ] = "off"
    url: Annotated[
        str,
        Meta(
            pattern=r"^((https://[^/\s@]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?)(/[^\s?#]*)?)?$",
            description="base address of the endpoint, such as https://api.openai.com/v1; https, or this machine",
        ),
    ] = ""
    model: Annotated[
        str, Meta(description="name of the model there; for gguf the path of a file, or smollm2")
    ] = ""
    key: Annotated[
        str,
        Meta(
            pattern=r"^(\$[A-Za-z_]\w*)?$",
            description="$NAME of the environment variable that holds the key, never the key itself; empty: none",
        ),
    ] = ""
    weight: Annotated[
        Annotated[float, Meta(ge=0, le=10)] | Literal["auto"],
        Meta(
            description="what plans count: 1 doubles the chance of the interest that a plan names first, raises that "
            "of the second by half, and so on; auto: what `plan` found to help, else 0"
        ),
    ] = "auto"
    plans: Annotated[int, Meta(ge=1, le=20, description="interests a plan names")] = 5
    named: Annotated[
        int, Meta(ge=1, le=10, description="held interests a question names: those taken up last")
    ] = 3
    people: Annotated[
        int, Meta(ge=1, description="people who must hold the same for a question to be asked about it")
    ] = 5
    timeout: Annotated[float, Meta(gt=0, le=600, description="seconds for an answer")] = 60.0
    tries: Annotated[int, Meta(ge=1, le=10, description="tries for a question, with growing pauses")] = 4
    at_once: Annotated[int, Meta(ge=1, le=32, description="questions under way at a time")] = 4
    per_minute: Annotated[int, Meta(ge=1, description="questions a minute, tries included")] = 60
    per_day: Annotated[int, Meta(ge=1, description="questions a day, tries included")] = 1000
    answer_tokens: Annotated[int, Meta(ge=16, le=32_000, description="tokens of an answer at most")] = 300
    input_price: Annotated[
        float, Meta(ge=0, description="price of a million tokens of questions, in any currency")
    ] = 0.0
    output_price: Annotated[float, Meta(ge=0, description="price of a million tokens of answers")] = 0.0
    cost_per_day: Annotated[
        float,
        Meta(ge=0, description="money a day, in the currency of the prices; without prices it is no limit"),
    ] = 1.0

    @property
    def name(self) -> str:
        """Which model is asked, and where."""
        if self.llm == "gguf":
            return Path(self.model).name
        return f"{self.model}@{urlsplit(self.url).netloc}"

    def check(self) -> None:
        """Is there a model to ask?

        Raises:
            InputError: None is set.
        """
        if self.llm == "off":
            hint = "set llm, and url, model and key, under [planner] in shop.toml"
            raise InputError("no language model is set that could plan", hint=hint)

    def open(self) -> ChatModel:
        """Make the model ready to be asked.

        Raises:
            InputError: None is set, or its settings are incomplete.
            MissingExtra: It needs a package that is not installed.
        """
        self.check()
        if self.llm == "gguf":
            from penchant.models import GGUF

            return GGUF(self.model)
        from penchant.models import Endpoint

        if not self.url or not self.model:
            missing = "url" if not self.url else "model"
            hint = f"set {missing} under [planner] in shop.toml"
            raise InputError(f"the language model has no {missing}", hint=hint, path=f"planner.{missing}")
        from penchant.engine._shop import named

        key = named(self.key)
        if self.key and not key:
            raise InputError(
                "the variable that holds the key of the language model is not set",
                value=self.key,
                hint="export it before penchant starts",
                path="planner.key",
            )
        return Endpoint(self.url, self.model, key, self.timeout)


class Spent(Noun, frozen=True):
    """What was asked on one day."""

    questions: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0


class BudgetSpentError(Exception):
    """The questions or the money of the day are used up; the message says which."""


class Budget:
    """Questions and money of one day. Threads share it.

    What an answer may cost at most is laid aside before it is asked for, so that the budget is never passed by answers
    that are under way; a try that fails counts as if it had been answered in full, since it may be billed.

    Args:
        settings: The ``[planner]`` table.
        spent: What the day has seen so far.

    Example:
        >>> budget = Budget(PlannerSettings(per_day=1), Spent())
        >>> budget.take(100)
        Spent(questions=1, input_tokens=100, output_tokens=300, cost=0.0)
        >>> budget.take(100)
        Traceback (most recent call last):
        penchant.engine._planner.BudgetSpentError: the 1 questions of the day (per_day) are asked
    """

    def __init__(self, settings: PlannerSettings, spent: Spent) -> None:
        self._settings, self._spent = settings, spent
        self._lock = threading.Lock()

    @property
    def spent(self) -> Spent:
        """Everything so far, with what is laid aside."""
        return self._spent

    def price(self, input_tokens: int, output_tokens: int) -> float:
        """What so many tokens cost."""
        return (input_tokens * self._settings.input_price + output_tokens * self._settings.output_price) / 1e6

    def take(self, tokens: int) -> Spent:
        """Lay aside what a question of so many tokens, and its answer, cost at most.

        Raises:
            BudgetSpentError: There is not so much left.
        """
        settings = self._settings
        most = tokens, settings.answer_tokens
        with self._lock:
            if self._spent.questions >= settings.per_day:
                raise BudgetSpentError(f"the {settings.per_day:,} questions of the day (per_day) are asked")
            part = Spent(questions=1, input_tokens=most[0], output_tokens=most[1], cost=self.price(*most))
            if part.cost and self._spent.cost + part.cost > settings.cost_per_day:
                raise BudgetSpentError(f"the {settings.cost_per_day:g} of the day (cost_per_day) are spent")
            self._spent = _sum(self._spent, part, 1)
        return part

    def settle(self, part: Spent, said: Said) -> None:
        """Put what an answer really took in the place of what was laid aside."""
        took = said.input_tokens, said.output_tokens
        real = Spent(questions=1, input_tokens=took[0], output_tokens=took[1], cost=self.price(*took))
        with self._lock:
            self._spent = _sum(_sum(self._spent, part, -1), real, 1)


def _sum(some: Spent, other: Spent, sign: int) -> Spent:
    parts = {name: getattr(some, name) + sign * getattr(other, name) for name in Spent.__struct_fields__}
    return Spent(**parts)


class Pace:
    """Lets so many begin a minute, evenly."""

    def __init__(self, per_minute: int, stop: threading.Event) -> None:
        self._gap, self._next, self._stop = 60 / per_minute, 0.0, stop
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for a turn, or until all stop."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap
        if turn > now:
            self._stop.wait(turn - now)


class Asker:
    """Asks a model within the manners of the settings. Threads share it; ``stop`` ends every pause.

    Args:
        model: Whom to ask.
        settings: The ``[planner]`` table.
        budget: Of the day.
    """

    def __init__(self, model: ChatModel, settings: PlannerSettings, budget: Budget) -> None:
        self.stop = threading.Event()
        self.budget = budget
        self._model, self._settings = model, settings
        self._pace = Pace(settings.per_minute, self.stop)

    def ask(self, system: str, question: str, schema: Mapping[str, Any]) -> Said:
        """Ask, and again where that may help.

        Raises:
            ServiceError: There is no answer after all tries, or trying again does not help.
            BudgetSpentError: The budget does not allow it.
        """
        from penchant.models import tokens_at_most

        for attempt in range(1, self._settings.tries + 1):
            self._pace.wait()
            if self.stop.is_set():
                raise BudgetSpentError("the run was stopped")
            part = self.budget.take(tokens_at_most(system, question))
            try:
                said = self._model.ask(system, question, schema, self._settings.answer_tokens)
            except ServiceError as error:
                # Half of the pause is by chance, so that many askers do not come back together.
                pause = _FIRST * 2 ** (attempt - 1) * random.uniform(0.5, 1)
                pause = min(pause if error.wait is None else error.wait, _LONGEST)
                if not error.again or attempt == self._settings.tries or self.stop.wait(pause):
                    raise
            else:
                self.budget.settle(part, said)
                return said
        raise AssertionError("the last try answers or raises")
