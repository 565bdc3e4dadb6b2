"""Conditions on catalogue fields, such as ``price <= 2000`` or ``category ^= Grocery``: parsed, never run as code."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core.errors import InputError

_CONDITION = re.compile(r"^\s*([^\W\d][\w.-]*)\s*(<=|>=|!=|\^=|~=|==|=|<|>)\s*(.*?)\s*$", re.DOTALL)
_HINT = "write FIELD OPERATOR VALUE, such as: price <= 2000, brand = National, category ^= GROCERY, labels ~= vegan"


def parse_filter(text: str) -> tuple[str, str, str]:
    """Split a condition into field, operator and value.

    Operators: ``= != < <= > >=`` compare, ``^=`` begins with, ``~=`` contains (text) or has (list).

    Raises:
        InputError: It is not a condition.

    Example:
        >>> parse_filter("price<=2000"), parse_filter("brand = 'National'")
        (('price', '<=', '2000'), ('brand', '=', 'National'))
    """
    match = _CONDITION.match(text) if len(text) <= 1000 else None
    if match is None:
        raise InputError("this is not a filter", value=text, hint=_HINT, path="$.filters")
    field, operator, value = match.groups()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return field, "=" if operator == "==" else operator, value


def filter_mask(catalog: pa.Table, filters: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Tell which catalogue rows meet every condition: (rows,) bool. A missing value meets only ``!=``.

    Raises:
        InputError: A condition cannot be read, names an unknown field, or does not fit the field's type.
    """
    mask = np.ones(catalog.num_rows, np.bool_)
    for text in filters:
        mask &= _one(catalog, text)
    return mask


def _one(catalog: pa.Table, text: str) -> npt.NDArray[np.bool_]:
    field, operator, value = parse_filter(text)
    column = _column(catalog, field)
    if pa.types.is_list(column.type):
        return _in_lists(column, operator, value, text)
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        met = _compare_numbers(column, operator, value, text)
    else:
        met = _compare_texts(column, operator, value, text)
    return np.asarray(pc.fill_null(met, operator == "!="))


def _column(catalog: pa.Table, field: str) -> pa.ChunkedArray:
    """A catalogue column, or a key of ``attributes`` written as ``attributes.key`` or plainly ``key``."""
    if field in catalog.column_names and field != "attributes":
        return catalog[field]
    key = field.removeprefix("attributes.")
    found: list[str | None] = []
    for raw in catalog["attributes"].to_pylist():
        value = json.loads(raw).get(key) if raw else None
        found.append(value if value is None or isinstance(value, str) else json.dumps(value))
    if all(value is None for value in found) and catalog.num_rows:
        known = ", ".join(name for name in catalog.column_names if name != "attributes")
        raise InputError(
            "no item has this field", value=field, hint=f"catalogue fields: {known}", path="$.filters"
        )
    return pa.chunked_array([pa.array(found, pa.string())])


def _compare_numbers(column: pa.ChunkedArray, operator: str, value: str, text: str) -> pa.ChunkedArray:
    try:
        number = float(value)
    except ValueError:
        raise InputError(
            "this field holds numbers",
            value=text,
            hint="compare it with a number (money in minor units)",
            path="$.filters",
        ) from None
    compare = {
        "=": pc.equal,
        "!=": pc.not_equal,
        "<": pc.less,
        "<=": pc.less_equal,
        ">": pc.greater,
        ">=": pc.greater_equal,
    }
    if operator not in compare:
        raise InputError("this operator is for text", value=text, hint="use = != < <= > >=", path="$.filters")
    return compare[operator](column, pa.scalar(number, column.type))


def _compare_texts(column: pa.ChunkedArray, operator: str, value: str, text: str) -> pa.ChunkedArray:
    if operator == "=":
        return pc.equal(column, value)
    if operator == "!=":
        return pc.not_equal(column, value)
    if operator == "^=":
        return pc.starts_with(column, value)
    if operator == "~=":
        return pc.match_substring(column, value, ignore_case=True)
    raise InputError(
        "this operator is for numbers", value=text, hint="use = != ^= ~= on text", path="$.filters"
    )


def _in_lists(column: pa.ChunkedArray, operator: str, value: str, text: str) -> npt.NDArray[np.bool_]:
    if operator not in ("=", "~=", "!="):
        raise InputError(
            "this field holds lists", value=text, hint="use ~= (has) or != (has not)", path="$.filters"
        )
    has = np.zeros(len(column), np.bool_)
    array = column.combine_chunks()
    parents = np.asarray(pc.list_parent_indices(array))
    has[parents[np.asarray(pc.fill_null(pc.equal(array.flatten(), value), False))]] = True
    return ~has if operator == "!=" else has
