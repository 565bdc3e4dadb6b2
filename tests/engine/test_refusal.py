"""A request that does not fit is answered with the place, the value and what the place takes."""

from __future__ import annotations

import pytest

from penchant.core.errors import InputError
from penchant.engine import OPERATIONS


@pytest.mark.parametrize(
    ("name", "body", "path", "value", "words"),
    [
        ("recommend", b'{"k": 0}', "$.k", 0, ">= 1 how many items"),
        ("recommend", b'{"k": "5"}', "$.k", "5", "`int` how many items"),
        ("recommend", b'{"seen": "maybe"}', "$.seen", None, "'maybe' one of allow, auto, exclude"),
        ("recommend", b'{"allow": ["a", 1]}', "$.allow[1]", 1, "`str` penchant recommend --help"),
        ("recommend", b'{"nope": 1}', None, None, "`nope` fields: user_id, anonymous_id"),
        ("recommend", b"[]", None, None, "`object` --help"),
        ("observe", b'{"events": [{"kind": "vieww"}]}', "$.events[0].kind", None, "'vieww' one of impression"),
        ("observe", b'{"events": [{"kind": "view", "ts": "x"}]}', "$.events[0].ts", "x", "microseconds since 1970"),
        ("observe", b'{"events": [{"kind": "view", "item": "x"}]}', "$.events[0]", None, "fields: kind, event_id"),
        ("observe", b'{"events": [{"kind": "view", "ts": "x"}]} and more', "$.events[0].ts", None, "microseconds"),
    ],
)  # fmt: skip
def test_place_value_and_meaning(name: str, body: bytes, path: str | None, value: object, words: str) -> None:
    with pytest.raises(InputError) as caught:
        OPERATIONS[name].parse(body)
    assert caught.value.path == path
    assert caught.value.value == value
    for word in words.split():
        assert word in str(caught.value)


def test_fields_given_in_python_are_named_alike() -> None:
    with pytest.raises(InputError, match=r"got 'x'\) at \$\.events\[0\]\.ts: microseconds"):
        OPERATIONS["observe"].build(events=[{"kind": "view", "ts": "x"}])
