"""Business rules: what a shop wants of every answer, said in the language of ``_expression``.

Rules act before the draw. ``only`` and ``exclude`` choose candidates; ``boost`` and ``add`` change what the policy
expects of them; ``bury`` lets items come only where no other is left; ``pin`` gives a slot away, whose odds are then
1 and say so. The odds of all other slots are those of the draw that took place.

Letters: N + 1 item numbers of a vocabulary, row 0 = no item.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import DAY, HOUR, KIND_CODES, TARGET_CODES, Bools, Floats, History, Ints, Vocabulary
from penchant.core.errors import InputError
from penchant.engine._answer_ids import SORTED
from penchant.engine._compile import Compiled, Kind, combined, compile_number, compile_truth
from penchant.engine._expression import parse

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

MOST_RULES = 100  # of one answer
MAX_SLOT = 1000
SHOWN_DAYS = 30  # how far back `hours_since_shown` reaches
_DERIVED = ("margin", "in_stock", "discount")
_CONTEXT: Mapping[str, Kind] = {
    "bought": "truth",
    "seen": "truth",
    "in_cart": "truth",
    "hours_since_bought": "number",
    "hours_since_seen": "number",
    "hours_since_carted": "number",
    "hours_since_shown": "number",
    "age_days": "number",
    "hour": "number",
    "weekday": "number",
    "surface": "text",
    "scenario": "text",
}


class _Attributes:
    """The ``attributes`` of a catalogue, read from their JSON when a field first asks for them."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Those of each row."""
        return [json.loads(raw) if raw else {} for raw in self._table["attributes"].to_pylist()]

    @cached_property
    def keys(self) -> set[str]:
        """All names."""
        return {key for one in self.rows for key in one}


class TableFields:
    """The columns of a table as fields; of a catalogue also what follows from them, and keys of ``attributes``.

    Args:
        table: Any table with text, number, truth and list columns.
        people: Kinds of the attributes of people, named ``user.NAME``; None: nobody is asked for.
    """

    def __init__(self, table: pa.Table, people: Mapping[str, Kind] | None = None) -> None:
        self.table, self.people = table, people
        self.rows = table.num_rows
        self._is_catalog = {"price", "availability", "attributes"} <= set(table.column_names)
        self._attributes = _Attributes(table)

    def about(self, people: Mapping[str, Kind]) -> TableFields:
        """The same, with what was read of it, and fields of a request."""
        found = copy.copy(self)
        found.people = people
        return found

    def mask(self, filters: Sequence[str], where: str = "$.filters") -> Bools:
        """Tell which rows meet every condition; see ``filter_mask``."""
        mask = np.ones(self.rows, np.bool_)
        for text in filters:
            made = compile_truth(parse(text, where=where), self, where, text)
            mask &= made.values(_nobody, self.rows).astype(np.bool_)
        return mask

    def column(self, name: str) -> tuple[Kind, Any] | None:
        """Kind and values of a field; None where there is none."""
        if self._is_catalog and name in _DERIVED:
            return getattr(self, "_" + name)()  # type: ignore[no-any-return]
        if name in self.table.column_names and name != "attributes":
            return _typed(self.table[name].combine_chunks())
        key = name.removeprefix("attributes.")
        return self._attribute(key) if self._is_catalog and key in self._attributes.keys else None

    def context(self, name: str) -> Kind | None:
        """Kind of a field that the request brings."""
        if self.people is None:
            return None
        if name == "age_days" and not self._is_catalog:
            return None
        return self.people.get(name.removeprefix("user.")) if name.startswith("user.") else _CONTEXT.get(name)

    def known(self) -> Sequence[str]:
        """Names of all fields."""
        names = [name for name in self.table.column_names if name != "attributes"]
        if self._is_catalog:
            names += [*_DERIVED, *sorted(self._attributes.keys)]
        if self.people is not None:
            names += [*_CONTEXT, *(f"user.{name}" for name in self.people)]
        return names

    def _attribute(self, key: str) -> tuple[Kind, Any]:
        """Numbers where all values are numbers, else texts."""
        found = [one.get(key) for one in self._attributes.rows]
        if all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in found):
            return "number", np.array([np.nan if v is None else float(v) for v in found])
        texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in found]
        return "text", pa.array(texts, pa.string())

    def _margin(self) -> tuple[Kind, Any]:
        price_N, cost_N = (_typed(self.table[n].combine_chunks())[1] for n in ("price", "cost"))
        return "number", price_N - cost_N

    def _in_stock(self) -> tuple[Kind, Any]:
        gone = pc.equal(self.table["availability"], "out_of_stock")
        none = pc.less_equal(self.table["available_quantity"], 0)
        out_N = np.asarray(pc.or_(pc.fill_null(gone, False), pc.fill_null(none, False)))
        listed_N = np.asarray(pc.is_valid(self.table["id"]))
        return "truth", listed_N & ~out_N

    def _discount(self) -> tuple[Kind, Any]:
        """Share of the price that each item is reduced by, 0 where it is not: from Google's ``sale_price``."""
        from penchant.data import minor_units, parse_money

        price_N = _typed(self.table["price"].combine_chunks())[1]
        sale_N = np.full(self.rows, np.nan)
        currencies = self.table["currency"].to_pylist()
        for row, (one, currency) in enumerate(zip(self._attributes.rows, currencies, strict=True)):
            given = one.get("sale_price")
            if given is not None and not isinstance(given, bool):
                amount = float(given) if isinstance(given, int | float) else parse_money(str(given))[0]
                sale_N[row] = np.nan if amount is None else amount * minor_units(currency)
        with np.errstate(divide="ignore", invalid="ignore"):
            share_N = 1 - sale_N / price_N
        return "number", np.where((sale_N >= 0) & (share_N > 0), share_N, 0.0)


def _typed(array: pa.Array) -> tuple[Kind, Any]:
    if pa.types.is_boolean(array.type):
        return "truth", np.asarray(pc.fill_null(array, False))
    if pa.types.is_list(array.type):
        return "list", array.cast(pa.list_(pa.string()))
    if pa.types.is_floating(array.type) or pa.types.is_integer(array.type):
        return "number", np.asarray(pc.fill_null(array.cast(pa.float64()), np.nan))
    return "text", array.cast(pa.string())


def filter_mask(table: pa.Table, filters: Sequence[str], where: str = "$.filters") -> Bools:
    """Tell which rows of a table meet every condition: (rows,) bool. A missing value meets only ``!=``.

    Raises:
        InputError: A condition cannot be read, names an unknown field, or does not fit the field's kind.
    """
    return TableFields(table).mask(filters, where)


def _nobody(name: str) -> Any:
    raise AssertionError(f"{name} needs a request")


@dataclass(frozen=True, eq=False)
class Worth:
    """What rules say of items, for the draw."""

    factor_N: Floats
    plus_N: Floats
    buried_N: Bools

    def of(self, item_N: Ints) -> Worth:
        """The same of some of them."""
        return Worth(self.factor_N[item_N], self.plus_N[item_N], self.buried_N[item_N])

    @property
    def raised_N(self) -> Bools:
        """Those that a rule lifts: they become candidates even where the model alone would not name them."""
        return np.asarray((self.factor_N > 1) | (self.plus_N > 0))

    def applied(self, mean_N: Floats, std_N: Floats) -> tuple[Floats, Floats]:
        """Expectations after ``boost`` and ``add``. What is buried is worth less than all the rest."""
        mean_N, std_N = mean_N * self.factor_N + self.plus_N, std_N * self.factor_N
        if self.buried_N.any() and not self.buried_N.all():
            gap = float(mean_N[self.buried_N].max() - mean_N[~self.buried_N].min())
            mean_N = np.where(self.buried_N, mean_N - max(gap, 0.0) - 1.0, mean_N)
        return mean_N, std_N


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the rules of an answer say of one person's items."""

    kept_N: Bools
    worth: Worth | None  # of all items; None: no rule changes what items are worth
    pins: list[tuple[int, Bools]]  # slot from 0, and which items fit it
    spoken: list[tuple[str, int]]  # each rule, and how many items it concerns


@dataclass(frozen=True, eq=False)
class _Rule:
    op: str
    text: str
    condition: Compiled | None
    amount: Compiled | None = None
    slot: int = 0


class RuleBook:
    """Filters and rules fitted to one version of a catalogue.

    Args:
        fields: Of the catalogue in the order of the vocabulary.
        filters: Conditions that all must hold.
        rules: Rules, in any order: those that change what an item is worth all count.

    Raises:
        InputError: One cannot be read or does not fit.
    """

    def __init__(self, fields: TableFields, filters: Sequence[str], rules: Sequence[str]) -> None:
        if len(filters) + len(rules) > MOST_RULES:
            raise InputError(
                "there are too many rules", value=len(filters) + len(rules), hint=f"use at most {MOST_RULES}"
            )
        self.rows = fields.rows
        self._rules = [
            _Rule("only", text, compile_truth(parse(text, "expression", where), fields, where, text))
            for at, text in enumerate(filters)
            for where in [f"$.filters[{at}]"]
        ]
        self._rules += [_read(text, fields, f"$.rules[{at}]") for at, text in enumerate(rules)]

    def judge(self, person: Person) -> Verdict:
        """Apply all rules for one person and moment."""
        kept_N = np.ones(self.rows, np.bool_)
        moved = self.rows if any(rule.op in ("boost", "add", "bury") for rule in self._rules) else 0
        factor_N, plus_N, buried_N = np.ones(moved), np.zeros(moved), np.zeros(moved, np.bool_)
        pins: list[tuple[int, Bools]] = []
        spoken: list[tuple[str, int]] = []
        for rule in self._rules:
            met_N = np.ones(self.rows, np.bool_)
            if rule.condition is not None:
                met_N = rule.condition.values(person, self.rows).astype(np.bool_)
            spoken.append((rule.text, int(met_N[1:].sum())))
            if rule.op == "only":
                kept_N &= met_N
            elif rule.op == "exclude":
                kept_N &= ~met_N
            elif rule.op == "bury":
                buried_N |= met_N
            elif rule.op == "pin":
                pins.append((rule.slot, met_N))
            else:
                assert rule.amount is not None
                amount_N = rule.amount.values(person, self.rows)
                known_N = met_N & np.isfinite(amount_N)
                if rule.op == "boost":
                    factor_N = np.where(known_N, factor_N * np.clip(amount_N, 0, 1e6), factor_N)
                else:
                    plus_N = np.where(known_N, plus_N + amount_N, plus_N)
        return Verdict(kept_N, Worth(factor_N, plus_N, buried_N) if moved else None, pins, spoken)


def _read(text: str, fields: TableFields, where: str) -> _Rule:
    node = parse(text, "rule", where)
    if node.op in ("boost", "add"):
        amount = compile_number(node.parts[0], fields, where, text)
        if amount.constant and not (0 <= _single(amount) <= 1000) and node.op == "boost":
            hint = "boost multiplies: use 0 to 1000, such as 1.5 for half as much again; add takes negative numbers"
            raise InputError("this boost is out of range", value=text, hint=hint, path=where)
        condition = compile_truth(node.parts[1], fields, where, text) if len(node.parts) > 1 else None
        return _Rule(node.op, text, condition, amount)
    condition = compile_truth(node.parts[0], fields, where, text)
    if node.op != "pin":
        return _Rule(node.op, text, condition)
    if not node.value.isdecimal() or not 1 <= int(node.value) <= MAX_SLOT:
        hint = f"slots are counted from 1, at most {MAX_SLOT}: pin id = tea at 1"
        raise InputError("this is no slot", value=node.value, hint=hint, path=where)
    if len(node.parts) > 1:
        when = compile_truth(node.parts[1], fields, where, text)
        condition = combined("truth", node, [condition, when], np.logical_and)
    return _Rule("pin", text, condition, slot=int(node.value) - 1)


def _single(amount: Compiled) -> float:
    value = np.asarray(amount.run(_nobody))
    return float(value) if value.ndim == 0 else 0.0  # a column: judged item by item


@dataclass(eq=False)
class Person:
    """What rules may ask of a request: whom it is for, what they did, and the moment. Worked out when asked for."""

    shop: Shop
    items: Vocabulary
    table: pa.Table  # the catalogue in the order of the vocabulary
    history: History
    now: int
    surface: str = "default"
    scenario: str = ""
    personal: bool = True  # whether anything kept about the person may be used
    _known: dict[str, Any] = field(default_factory=dict)

    def __call__(self, name: str) -> Any:
        """The value of a field."""
        if name not in self._known:
            found = self._attribute(name[5:]) if name.startswith("user.") else getattr(self, "_" + name)()
            self._known[name] = found
        return self._known[name]

    def _last(self, codes: Iterable[int]) -> Ints:
        """When each item last had an event of some kinds: microseconds, 0 = never."""
        last_N = np.zeros(len(self.items) + 1, np.int64)
        rows = np.flatnonzero(np.isin(self.history.kind, list(codes)))
        numbers = self.items.numbers([self.history.item[row] for row in rows])
        np.maximum.at(last_N, numbers, self.history.ts[rows])
        last_N[0] = 0
        return last_N

    def _hours(self, last_N: Ints) -> Floats:
        return np.where(last_N > 0, (self.now - last_N) / HOUR, np.nan)

    def _hours_since_bought(self) -> Floats:
        return self._hours(self._last([KIND_CODES["purchase"]]))

    def _hours_since_seen(self) -> Floats:
        return self._hours(self._last(TARGET_CODES))

    def _hours_since_carted(self) -> Floats:
        return self._hours(self._last([KIND_CODES["cart_add"]]))

    def _hours_since_shown(self) -> Floats:
        last_N = np.zeros(len(self.items) + 1, np.int64)
        if self.personal:
            since = self.now - SHOWN_DAYS * DAY
            for ts, items in self.shop.store.shown(self.history.subject, since=since, but=SORTED):
                numbers = self.items.numbers(items)
                last_N[numbers] = np.maximum(last_N[numbers], ts)
        last_N[0] = 0
        return self._hours(last_N)

    def _bought(self) -> Bools:
        return np.asarray(np.isfinite(self("hours_since_bought")))

    def _seen(self) -> Bools:
        seen_N = np.zeros(len(self.items) + 1, np.bool_)
        seen_N[self.items.numbers(list(self.history.seen))] = True
        seen_N[0] = False
        return seen_N

    def _in_cart(self) -> Bools:
        added_N = self._last([KIND_CODES["cart_add"]])
        gone_N = self._last([KIND_CODES["cart_remove"], KIND_CODES["purchase"]])
        return np.asarray(added_N > gone_N)

    def _age_days(self) -> Floats:
        column = pc.fill_null(self.table["publish_time"].cast(pa.float64()), np.nan)
        return (self.now - np.asarray(column)) / DAY

    def _hour(self) -> float:
        return float(self.now // HOUR % 24)

    def _weekday(self) -> float:
        return float((self.now // DAY + 3) % 7 + 1)  # 1970-01-01 was a Thursday, day 4

    def _surface(self) -> str:
        return self.surface

    def _scenario(self) -> str:
        return self.scenario

    def _attribute(self, name: str) -> Any:
        users = self.shop.store.users()
        row = pc.index(users["user_id"], self.history.subject).as_py() if self.personal else -1
        value = users[name][row].as_py() if row >= 0 else None
        kind = people_fields(users)[name]
        if kind == "number":
            return np.nan if value is None else float(value)
        return bool(value) if kind == "truth" else value


def people_fields(users: pa.Table) -> dict[str, Kind]:
    """Kinds of what the shop says of its users."""
    return {
        name: _typed(pa.array([], kind))[0]
        for name, kind in zip(users.schema.names, users.schema.types, strict=True)
        if name != "user_id"
    }
