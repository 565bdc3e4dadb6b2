"""The language of filters and rules: parsed by a grammar, compiled to masks over a whole table, never run as code.

The grammar is LALR, read by Lark (MIT licence): the time grows with the length of the text, and the parser has
no recursion that a nested text could exhaust. What is read becomes a ``Node``; ``_compile`` fits it to a table.
Everything that depends on the table alone is computed there and then, once for each version of the catalogue; what
depends on the person or the hour is left for ``Compiled.values``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from lark import Lark, Token, Transformer, Tree, UnexpectedInput, v_args
from lark.exceptions import VisitError

from penchant.core.errors import InputError

MAX_LENGTH = 2000  # characters of one text
MAX_DEPTH = 40  # levels of one text; brackets and chains of + - * / count
_HINT = "write FIELD OPERATOR VALUE, such as: price <= 2000, brand = National, category ^= 'GROCERY > DAIRY'"

_GRAMMAR = r"""
?expression: disjunction
?rule: "only" disjunction                  -> only
    | "exclude" disjunction                -> exclude
    | "bury" disjunction                   -> bury
    | "boost" sum [when]                   -> boost
    | "add" sum [when]                     -> add
    | "pin" disjunction "at" NUMBER [when] -> pin
?when: "when" disjunction

?disjunction: conjunction | conjunction ("or" conjunction)+  -> any_of
?conjunction: negation | negation ("and" negation)+          -> all_of
?negation: comparison | "not" negation                       -> negate
?comparison: sum
    | sum OPERATOR sum                                       -> compare
    | sum "in" "[" sum ("," sum)* "]"                        -> member
    | sum "not" "in" "[" sum ("," sum)* "]"                  -> outsider
?sum: product | sum "+" product -> plus | sum "-" product    -> minus
?product: atom | product "*" atom -> times | product "/" atom -> over
?atom: NUMBER -> number | STRING -> text | NAME -> name | "-" atom -> opposite | "(" disjunction ")"

OPERATOR: "<=" | ">=" | "!=" | "^=" | "~=" | "==" | "=" | "<" | ">"
NUMBER: /[0-9]{1,18}(\.[0-9]{1,18})?/
STRING: /"[^"]*"|'[^']*'/
NAME: /[^\W\d]\w*((\.|-(?=[^\W\d]))\w+)*/
%ignore /\s+/
"""

_WORDS = {
    "OPERATOR": "an operator (= != < <= > >= ^= ~=)",
    "NAME": "a field",
    "NUMBER": "a number",
    "STRING": "a quoted text",
    "LPAR": "(",
    "RPAR": ")",
    "LSQB": "[",
    "RSQB": "]",
    "PLUS": "+",
    "MINUS": "-",
    "STAR": "*",
    "SLASH": "/",
    "COMMA": ",",
    "$END": "the end",
}


@dataclass(frozen=True)
class Node:
    """A part of what was read: its operation, its operands, what was written, and where (0 = first character)."""

    op: str
    parts: tuple[Node, ...] = ()
    value: str = ""
    at: int = 0
    depth: int = 1


class _TooDeep(Exception):
    pass


def _node(op: str, parts: Sequence[Any], value: str = "") -> Node:
    nodes = tuple(part for part in parts if isinstance(part, Node))
    depth = 1 + max((node.depth for node in nodes), default=0)
    if depth > MAX_DEPTH:
        raise _TooDeep
    return Node(op, nodes, value, nodes[0].at if nodes else 0, depth)


@v_args(inline=False)
class _ToNodes(Transformer):  # type: ignore[type-arg]
    """Called by the parser itself each time it has read a part: no tree is walked."""

    def __default__(self, data: Any, children: list[Any], meta: Any) -> Any:
        if data.startswith("__"):  # made by Lark for a repetition: taken up by the rule around it
            return Tree(data, children)
        return _node(str(data), children)

    def number(self, children: list[Token]) -> Node:
        return Node("number", (), str(children[0]), children[0].start_pos or 0)

    def text(self, children: list[Token]) -> Node:
        return Node("text", (), str(children[0])[1:-1], children[0].start_pos or 0)

    def name(self, children: list[Token]) -> Node:
        return Node("name", (), str(children[0]), children[0].start_pos or 0)

    def compare(self, children: list[Any]) -> Node:
        sign = str(children[1])
        return _node("compare", children, "=" if sign == "==" else sign)

    def pin(self, children: list[Any]) -> Node:
        return _node("pin", children, next(str(c) for c in children if isinstance(c, Token)))


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", start=["expression", "rule"], transformer=_ToNodes())


@lru_cache(maxsize=4096)
def parse(text: str, start: Literal["expression", "rule"] = "expression", where: str = "$.filters") -> Node:
    """Read a condition, or a rule.

    Args:
        text: What was written.
        start: ``expression`` for conditions and numbers, ``rule`` for ``boost 1.5 when ...`` and the like.
        where: Path of the text in the request or in ``shop.toml``, for errors.

    Raises:
        InputError: It cannot be read: at which character, and what would fit there.

    Example:
        >>> parse("price <= 20 and in_stock").op
        'all_of'
        >>> parse("price <= ")
        Traceback (most recent call last):
        ...
        penchant.core.errors.InputError: this breaks off at character 10 (got 'price <= ') at $.filters: ...
    """
    what = "filter" if start == "expression" else "rule"
    if len(text) > MAX_LENGTH:
        raise InputError(
            f"this {what} is too long", value=text, hint=f"use at most {MAX_LENGTH:,} characters", path=where
        )
    try:
        return _parser().parse(text, start=start)  # type: ignore[return-value]
    except UnexpectedInput as error:
        raise _misread(text, what, error, where) from None
    except (_TooDeep, VisitError):
        hint = f"use at most {MAX_DEPTH} levels: fewer brackets and shorter sums, or [..] lists for choices"
        raise InputError(f"this {what} is nested too deep", value=text, hint=hint, path=where) from None


def _misread(text: str, what: str, error: UnexpectedInput, where: str) -> InputError:
    found = getattr(error, "accepts", None) or getattr(error, "expected", None)
    found = found or getattr(error, "allowed", None) or ()
    fits = sorted({_WORDS.get(name, name.lower()) for name in found})
    at = error.pos_in_stream if error.pos_in_stream is not None else len(text)
    ended = getattr(getattr(error, "token", None), "type", "") == "$END"
    at = len(text) if ended or at < 0 else at
    head = (
        f"this breaks off at character {at + 1}"
        if ended
        else f"this is not a {what}: it cannot be read at character {at + 1}"
    )
    example = _HINT if what == "filter" else "write such as: boost 1.5 when brand = National, exclude bought"
    return InputError(head, value=text, hint=f"there fits {', '.join(fits)}; {example}", path=where)
