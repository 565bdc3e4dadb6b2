"""Shops on one server never share a schema, however alike their names are."""

from __future__ import annotations

import re

from penchant.store._postgres import schema_of

ALIKE = [
    "Corner Shop",
    "corner-shop",
    "corner_shop",
    "corner__shop",
    "店",
    "餐",
    "x" * 60,
    "x" * 61,
    "X" * 60,
]


def test_no_two_names_share_a_schema() -> None:
    schemas = [schema_of(name) for name in ALIKE]
    assert len(set(schemas)) == len(ALIKE)
    assert all(re.fullmatch(r"[a-z0-9_]{1,63}", schema) for schema in schemas)
