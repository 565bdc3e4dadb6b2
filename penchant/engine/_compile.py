"""What is written, fitted to a table: fields and operators are checked, and all that depends on the table is computed.

Letters: N rows of the table.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import Bools
from penchant.core.errors import InputError
from penchant.engine._expression import Node

Kind = Literal["number", "text", "truth", "list"]


class Fields(Protocol):
    """What names mean: columns of a table, and what is known only when somebody asks."""

    rows: int

    def column(self, name: str) -> tuple[Kind, Any] | None:
        """Kind and values of a column: (N,) float64 with NaN for none, (N,) bool, or Arrow text or lists."""
        ...

    def context(self, name: str) -> Kind | None:
        """Kind of a field that the request brings; None: there is none of this name."""
        ...

    def known(self) -> Sequence[str]:
        """Names to suggest."""
        ...


Context = Callable[[str], Any]
"""Gives the value of a field that the request brings, by its name: for all rows (N,) or one for all."""


@dataclass(frozen=True, eq=False)
class Compiled:
    """A condition or number fitted to a table.

    Args:
        kind: What it gives.
        constant: Its value where nothing of it depends on the request.
    """

    kind: Kind
    run: Callable[[Context], Any]
    constant: bool
    written: Node

    def values(self, context: Context, rows: int) -> Any:
        """Its value for every row, (N,)."""
        return np.broadcast_to(np.asarray(self.run(context)), (rows,))


def compile_truth(node: Node, fields: Fields, where: str, text: str) -> Compiled:
    """Fit a condition to a table.

    Raises:
        InputError: A field is unknown, or an operator does not fit its kind: which, where, and what would fit.
    """
    made = _Compiler(fields, where, text).compile(node)
    if made.kind != "truth":
        raise InputError(
            f"this says no yes or no: it is a {made.kind}",
            value=text,
            hint=f"compare it, as in: {_shown(node)} {'> 0' if made.kind == 'number' else '= something'}",
            path=where,
        )
    return made


def compile_number(node: Node, fields: Fields, where: str, text: str) -> Compiled:
    """Fit a number to a table; the same errors as ``compile_truth``."""
    made = _Compiler(fields, where, text).compile(node)
    if made.kind != "number":
        raise InputError(
            f"this is no number: it is a {made.kind}", value=text, hint="give a number or a sum", path=where
        )
    return made


def combined(kind: Kind, node: Node, parts: Sequence[Compiled], join: Callable[..., Any]) -> Compiled:
    """What joins the values of some parts; computed at once where none of them depends on the request."""

    def run(context: Context) -> Any:
        return join(*(part.run(context) for part in parts))

    if all(part.constant for part in parts):
        return _fixed(kind, run(_nothing), node)
    return Compiled(kind, run, False, node)


def _fixed(kind: Kind, value: Any, node: Node) -> Compiled:
    return Compiled(kind, lambda _: value, True, node)


def _shown(node: Node) -> str:
    return node.value if node.op in ("name", "number") else "it"


_ORDER: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
}
_SUMS: Mapping[str, Callable[[Any, Any], Any]] = {
    "plus": operator.add,
    "minus": operator.sub,
    "times": operator.mul,
}
_FITS: Mapping[Kind, str] = {
    "number": "= != < <= > >= in",
    "text": "= != ^= (begins with) ~= (contains) in",
    "list": "~= or = (has), != (has not)",
    "truth": "it stands alone, or = true, = false",
}


class _Compiler:
    def __init__(self, fields: Fields, where: str, text: str) -> None:
        self.fields, self.where, self.text = fields, where, text

    def compile(self, node: Node) -> Compiled:
        """Compile, and compute at once what depends on the table alone."""
        made: Compiled = getattr(self, "_" + node.op)(node)
        return made

    def _error(self, node: Node, message: str, hint: str) -> InputError:
        text = f"{message} at character {node.at + 1}"
        return InputError(text, value=self.text, hint=hint, path=self.where)

    # -- what is written -------------------------------------------------------------------------------

    def _number(self, node: Node) -> Compiled:
        return _fixed("number", float(node.value), node)

    def _text(self, node: Node) -> Compiled:
        return _fixed("text", node.value, node)

    def _name(self, node: Node) -> Compiled:
        made = self._field(node)
        if made is None:
            raise self._unknown(node)
        return made

    def _field(self, node: Node) -> Compiled | None:
        name = node.value
        if name in ("true", "false"):
            return _fixed("truth", name == "true", node)
        found = self.fields.column(name)
        if found is not None:
            return _fixed(found[0], found[1], node)
        kind = self.fields.context(name)
        return None if kind is None else Compiled(kind, lambda context: context(name), False, node)

    def _unknown(self, node: Node) -> InputError:
        known = list(self.fields.known())
        near = difflib.get_close_matches(node.value, known, 3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        return self._error(
            node,
            f"no item has the field {node.value}",
            f"{hint}fields: {', '.join(known)}; texts stand in quotes",
        )

    # -- yes and no ------------------------------------------------------------------------------------

    def _parts(self, node: Node, kind: Kind, wrong: str, hint: str) -> list[Compiled]:
        """The operands, all of one kind; ``wrong`` ends the sentence on one that is not."""
        made = [self.compile(part) for part in node.parts]
        for one in made:
            if one.kind != kind:
                raise self._error(one.written, f"{one.written.value or 'this'} is a {one.kind}{wrong}", hint)
        return made

    def _truths(self, node: Node) -> list[Compiled]:
        hint = "and, or, not join conditions, such as: price <= 2000"
        return self._parts(node, "truth", ", not yes or no", hint)

    def _all_of(self, node: Node) -> Compiled:
        return combined("truth", node, self._truths(node), _all)

    def _any_of(self, node: Node) -> Compiled:
        return combined("truth", node, self._truths(node), _any)

    def _negate(self, node: Node) -> Compiled:
        return combined("truth", node, self._truths(node), np.logical_not)

    # -- numbers ---------------------------------------------------------------------------------------

    def _numbers(self, node: Node) -> list[Compiled]:
        return self._parts(node, "number", ": it cannot be computed with", "+ - * / take numbers")

    def _opposite(self, node: Node) -> Compiled:
        return combined("number", node, self._numbers(node), operator.neg)

    def _sum(self, node: Node) -> Compiled:
        return combined("number", node, self._numbers(node), _SUMS[node.op])

    _plus = _minus = _times = _sum

    def _over(self, node: Node) -> Compiled:
        return combined("number", node, self._numbers(node), _quotient)

    # -- comparing -------------------------------------------------------------------------------------

    def _compare(self, node: Node) -> Compiled:
        return self._compared(node, node.parts[0], node.value, node.parts[1])

    def _member(self, node: Node) -> Compiled:
        met = [self._compared(node, node.parts[0], "=", part) for part in node.parts[1:]]
        return combined("truth", node, met, _any)

    def _outsider(self, node: Node) -> Compiled:
        return combined("truth", node, [self._member(node)], np.logical_not)

    def _compared(self, node: Node, left_node: Node, sign: str, right_node: Node) -> Compiled:
        left, right = self._sides(left_node, right_node)
        if left.kind == "list" and right.kind == "text" and sign in ("=", "~=", "!="):
            return combined("truth", node, [left, right], lambda a, b: _has(a, b) ^ (sign == "!="))
        if left.kind != right.kind or left.kind == "list":
            raise self._error(
                left_node,
                f"{_shown(left_node)} is a {left.kind}, and {_shown(right_node)} a {right.kind}",
                f"compare a {left.kind} with a {'text' if left.kind == 'list' else left.kind}: {_FITS[left.kind]}",
            )
        if left.kind == "text" and sign in ("=", "!=", "^=", "~="):
            return combined("truth", node, [left, right], lambda a, b: _texts(a, sign, b))
        if left.kind == "number" and sign in _ORDER:
            return combined("truth", node, [left, right], _quiet(_ORDER[sign]))
        if left.kind == "number" and sign == "!=":
            return combined("truth", node, [left, right], lambda a, b: ~np.equal(a, b))
        if left.kind == "truth" and sign in ("=", "!="):
            return combined("truth", node, [left, right], operator.eq if sign == "=" else operator.ne)
        raise self._error(
            left_node, f"{sign} does not fit {_shown(left_node)}, a {left.kind}", f"use {_FITS[left.kind]}"
        )

    def _sides(self, left_node: Node, right_node: Node) -> tuple[Compiled, Compiled]:
        """Both sides; a bare word beside a text or a list is a text, and so is a number beside a text."""
        left = self._field(left_node) if left_node.op == "name" else self.compile(left_node)
        if left is None:
            raise self._unknown(left_node)
        right = self._field(right_node) if right_node.op == "name" else self.compile(right_node)
        word = left.kind in ("text", "list") and right_node.op in ("name", "number")
        if word and (right is None or right.kind != "text"):
            right = _fixed("text", right_node.value, right_node)
        if right is None:
            raise self._unknown(right_node)
        return left, right


def _nothing(name: str) -> Any:
    raise AssertionError(f"{name} is not part of the table")


def _all(*masks: Any) -> Any:
    return reduce(np.logical_and, masks)


def _any(*masks: Any) -> Any:
    return reduce(np.logical_or, masks)


def _quiet(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def compared(a: Any, b: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return np.asarray(compare(np.asarray(a), np.asarray(b)))

    return compared


def _quotient(a: Any, b: Any) -> Any:
    """A division by zero gives no number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.true_divide(a, b)
    return np.where(np.isfinite(found), found, np.nan)


def _texts(a: Any, sign: str, b: Any) -> Any:
    """Compare texts, a column or one each; a missing one meets only ``!=``."""
    if a is None or b is None:
        return np.bool_(sign == "!=")
    if sign in ("^=", "~=") and not isinstance(b, str):
        given = a if isinstance(a, str) else None
        pairs = zip(([given] * len(b)) if given is not None else a.to_pylist(), b.to_pylist(), strict=True)
        test = str.startswith if sign == "^=" else (lambda x, y: y.casefold() in x.casefold())
        return np.array([x is not None and y is not None and bool(test(x, y)) for x, y in pairs], np.bool_)
    if isinstance(a, str) and isinstance(b, str):
        met: Any = {"=": a == b, "!=": a != b, "^=": a.startswith(b), "~=": b.casefold() in a.casefold()}[
            sign
        ]
        return np.bool_(met)
    if sign == "^=":
        met = pc.starts_with(a, b)
    elif sign == "~=":
        met = pc.match_substring(a, b, ignore_case=True)
    else:
        met = (pc.equal if sign == "=" else pc.not_equal)(a, b)
    return np.asarray(pc.fill_null(met, sign == "!="))


def _has(column: Any, word: Any) -> Bools | np.bool_:
    """Which lists hold a text; either is one for all where the request brings it, else each item has its own."""
    if isinstance(word, (pa.Array, pa.ChunkedArray)):
        lists = (
            column.to_pylist() if isinstance(column, (pa.Array, pa.ChunkedArray)) else [column] * len(word)
        )
        pairs = zip(lists, word.to_pylist(), strict=True)
        return np.array(
            [some is not None and one is not None and one in some for some, one in pairs], np.bool_
        )
    if column is None or isinstance(column, (list, tuple, frozenset)):
        return np.bool_(column is not None and word in column)
    has = np.zeros(len(column), np.bool_)
    if word is not None:
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        parents = np.asarray(pc.list_parent_indices(array))
        has[parents[np.asarray(pc.fill_null(pc.equal(array.flatten(), word), False))]] = True
    return has
