"""Taking an erased guest's device id out of refused rows that are somebody else's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from penchant.core import GUEST_PREFIX
from penchant.data._source_chunks import to_json

_NAMES_PEOPLE = re.compile(
    "user|customer|member|client|visitor|guest|person|anonym|device|cookie|household|account|pseudo|session",
    re.IGNORECASE,
)
_WORDS, _MARKS = re.compile(r"[0-9A-Za-z_-]+"), ".,;:!?()[]{}<>\"'"
_UNLIKE_OTHERS = re.compile(r"(?=.{6})(?=.*[^0-9])", re.DOTALL)


class Redaction:
    """Takes one id out of raw rows.

    An id that nothing else reads like goes wherever it stands alone. A short one, or one of digits alone, may be a
    product code or a quantity: it goes where it is the whole value of a field whose name speaks of people.

    Example:
        >>> Redaction("device-77")('{"user":"m1","device":"device-77","note":"by device-77!"}')
        '{"device":"","note":"by !","user":"m1"}'
        >>> Redaction("12")('{"device":"12","quantity":"12"}')
        '{"device":"","quantity":"12"}'
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.anywhere = _UNLIKE_OTHERS.match(name) is not None
        self._word = re.compile(rf"(?<![0-9A-Za-z_-]){re.escape(name)}(?![0-9A-Za-z_-])")

    def __call__(self, raw: str) -> str:
        """The row without the id; the row itself when it does not hold it."""
        try:
            row = msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError):
            return self.text(raw) if self.anywhere else raw
        clean = self._value(row, "")
        return raw if clean == row else to_json(clean)

    def text(self, text: str) -> str:
        """A text without the id, where it stands alone."""
        return self._word.sub("", text)

    def _value(self, value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {k: self._value(inner, k) for k, inner in value.items()}
        if isinstance(value, list):
            return [self._value(inner, key) for inner in value]
        if isinstance(value, str) and self.anywhere:
            return self.text(value)
        if str(value) == self.name and _NAMES_PEOPLE.search(key):
            return "" if isinstance(value, str) else None
        return value


def without_guests(raw: str, subject: str | None, erased: Callable[[str], bool]) -> str:
    """A raw row without the device ids of erased guests; the id of the user whose row it is stays."""
    try:
        row = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return raw
    for name in {value for value in _values(row) if value != subject and erased(GUEST_PREFIX + value)}:
        raw = Redaction(name)(raw)
    return raw


def _values(value: Any) -> Iterator[str]:
    """What may be an id: every value, and within texts every word that a ``Redaction`` takes out of a text."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _values(inner)
    elif value is not None and not isinstance(value, bool) and (text := str(value)):
        yield text
        for word in (*_WORDS.findall(text), *(part.strip(_MARKS) for part in text.split())):
            if _UNLIKE_OTHERS.match(word):
                yield word
