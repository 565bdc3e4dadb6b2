"""A request that does not fit is answered with the place, the value and what the place takes."""

from __future__ import annotations

import pytest

from penchant.core.errors import InputError
from penchant.engine import OPERATIONS


@pytest.mark.parametrize(
    ("name", "body", "path", "value", "words"),
    [
        ("recommend", b'{"k": 0}', "$.k", 0, ">= 1 how many items"),
        ("recommend", b'{"k": "5"}', "$.k", "5", "`int | null` how many items"),
        ("recommend", b'{"seen": "maybe"}', "$.seen", None, "'maybe' one of allow, auto, exclude"),
        ("recommend", b'{"allow": ["a", 1]}', "$.allow[1]", 1, "`str` penchant recommend --help"),
        ("recommend", b'{"nope": 1}', None, None, "`nope` fields: user_id, anonymous_id"),
        ("recommend", b"[]", None, None, "`object` --help"),
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
    with pytest.raises(InputError, match=r"got 'maybe'\) at \$\.seen: one of|'maybe' at \$\.seen: one of"):
        OPERATIONS["recommend"].build(seen="maybe")


def test_a_request_to_observe_is_refused_whole_only_where_it_holds_no_list_of_events() -> None:
    for body, words in (
        (b"{}", "events"),
        (b'{"events": {}}', "array"),
        (b'{"events": [], "more": 1}', "more"),
    ):
        with pytest.raises(InputError, match=words):
            OPERATIONS["observe"].parse(body)
    with pytest.raises(InputError, match="10000"):
        OPERATIONS["observe"].build(events=[{}] * 10_001)
