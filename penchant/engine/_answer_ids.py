"""Which answers are drawn and teach the policy, and which are lists that are only sorted."""

from __future__ import annotations

import secrets

import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import Slate

BY_TEXT, COMPANIONS = "search/1", "similar/1"  # the policies of sorted lists
_UNTAUGHT = "x"  # how the ids of answers begin that teach the policy nothing; other ids are hexadecimal


def answer_id(*, teaches: bool = True) -> str:
    """The id of a new answer; ``teaches``: whether the policy learns from its outcomes."""
    return ("" if teaches else _UNTAUGHT) + secrets.token_hex(12)


def is_taught(recommendation_id: str) -> bool:
    """Whether the policy learns from the outcomes of the answer with this id."""
    return not recommendation_id.startswith(_UNTAUGHT)


def plain_history(recommendation_id: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which events no answer taught by them accounts for: they count as what people do by themselves.

    Example:
        >>> ids = pa.chunked_array([[None, "5f0c", "x5f0c"]])
        >>> plain_history(ids).to_pylist()
        [True, False, True]
    """
    return pc.fill_null(pc.starts_with(recommendation_id, pattern=_UNTAUGHT), True)


SORTED = frozenset({BY_TEXT, COMPANIONS})  # policies that sort and do not draw


def is_drawn(slate: Slate) -> bool:
    """Whether a logged answer is a recommendation; searches and companions are sorted lists."""
    return slate.policy_id not in SORTED
