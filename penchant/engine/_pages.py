"""Pages of an answer: a cursor says what was shown already, signed by the shop, so that no page repeats another.

A cursor holds all that the next page needs, so no server has to remember anybody. It is bound to the person and the
surface it was made for. What it says is not secret: the ids of items that the person was shown.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import zlib
from typing import TYPE_CHECKING

import msgspec

from penchant.core.errors import InvalidCursor
from penchant.privacy import own_secret

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

MOST_SHOWN = 500  # items of all pages together
MAX_CURSOR = 16_000  # characters
_SIGNATURE = 16  # bytes
_PLAIN = 500  # bytes that are not worth packing
_MOST_BYTES = 200_000  # of what a cursor says, unpacked


def next_cursor(shop: Shop, subject: str, surface: str, shown: list[str]) -> str | None:
    """A cursor behind everything shown so far; None where there may be no further page, or none can be signed yet."""
    if len(shown) > MOST_SHOWN:
        return None
    said = msgspec.json.encode(shown)
    packed = said if len(said) <= _PLAIN else zlib.compress(said, 1)  # which never begins like a list
    try:
        signature = _sign(shop, subject, surface, packed)
    except OSError:  # the first one makes a key: on a full disk this page is answered, and is the last
        return None
    text = base64.urlsafe_b64encode(signature + packed).decode()
    return text if len(text) <= MAX_CURSOR else None


def shown_before(shop: Shop, subject: str, surface: str, cursor: str) -> list[str]:
    """The items that a cursor says were shown.

    Raises:
        InvalidCursor: It was not made by this shop for this person and surface.
    """
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii"))
        signature, packed = raw[:_SIGNATURE], raw[_SIGNATURE:]
        if not hmac.compare_digest(signature, _sign(shop, subject, surface, packed)):
            raise ValueError
        if not packed.startswith(b"["):
            packed = zlib.decompressobj().decompress(packed, _MOST_BYTES)
        return msgspec.json.decode(packed, type=list[str])
    except (ValueError, binascii.Error, zlib.error, msgspec.DecodeError):
        raise InvalidCursor(
            "this cursor was not made for this request",
            hint="send the cursor of the answer before with the same person, scenario and surface, or begin without",
            path="$.cursor",
        ) from None


def _sign(shop: Shop, subject: str, surface: str, packed: bytes) -> bytes:
    key = own_secret(shop.path / "cursor.key") if shop.cursor_key is None else shop.cursor_key
    shop.cursor_key = key
    bound = msgspec.json.encode([subject, surface])
    return hmac.digest(key, bound + b"\0" + packed, "sha256")[:_SIGNATURE]
