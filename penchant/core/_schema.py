"""Column names, Arrow schemas and the two functions that say whose an event is and where it lies."""

from __future__ import annotations

import hashlib

import pyarrow as pa

NUM_BUCKETS = 64
GUEST_PREFIX = "anon:"

# An accepted event at rest, in this order. `subject` and `bucket` follow from the ids (see below);
# `seq` numbers accepted events in order of arrival and keeps the source order where times tie.
EVENT_SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("ts", pa.int64(), nullable=False),  # microseconds since 1970, UTC
        pa.field("subject", pa.string(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("anonymous_id", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("item_id", pa.string()),
        pa.field("value", pa.float64()),  # money of the whole line in minor units; stars for a review
        pa.field("quantity", pa.float64()),
        pa.field("currency", pa.string()),
        pa.field("query", pa.string()),
        pa.field("text", pa.string()),
        pa.field("recommendation_id", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("consent", pa.string()),  # purposes, comma separated
        pa.field("props", pa.string()),  # JSON object
    ]
)
TABLE_SCHEMA = EVENT_SCHEMA.append(pa.field("seq", pa.int64(), nullable=False)).append(
    pa.field("bucket", pa.int32(), nullable=False)
)

# The catalogue in Google Merchant names. Only `id` is required; further columns ride along in `attributes`.
CATALOG_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("item_group_id", pa.string()),
        pa.field("title", pa.string()),
        pa.field("description", pa.string()),
        pa.field("link", pa.string()),
        pa.field("image_link", pa.string()),
        pa.field("brand", pa.string()),
        pa.field("gtin", pa.string()),
        pa.field("price", pa.float64()),  # minor units
        pa.field("currency", pa.string()),
        pa.field("cost", pa.float64()),  # minor units
        pa.field("availability", pa.string()),  # in_stock | out_of_stock | preorder | backorder
        pa.field("available_quantity", pa.float64()),
        pa.field("condition", pa.string()),
        pa.field("category", pa.string()),  # a path, levels joined by " > "
        pa.field("color", pa.string()),
        pa.field("size", pa.string()),
        pa.field("rating", pa.float64()),
        pa.field("publish_time", pa.int64()),  # microseconds since 1970, UTC
        pa.field("language", pa.string()),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("attributes", pa.string()),  # JSON object of everything else
    ]
)

# What the shop says of its users: one row a user, numeric, text and list columns side by side.
USER_KEY = "user_id"
INTEREST_LABEL = "interest_label"


def subject_of(user_id: str | None, anonymous_id: str | None) -> str:
    """Name the person an event belongs to: the user id, else the guest's id with a prefix.

    Example:
        >>> subject_of("u1", None), subject_of(None, "c9")
        ('u1', 'anon:c9')
    """
    if user_id:
        return user_id
    if anonymous_id:
        return GUEST_PREFIX + anonymous_id
    raise ValueError("an event needs a user_id or an anonymous_id")


def bucket_of(subject: str, num_buckets: int = NUM_BUCKETS) -> int:
    """Tell in which bucket of the event table a person's events lie.

    The last 8 bytes of the MD5 digest, little-endian, modulo the number of buckets: the same as DuckDB's
    ``md5_number_lower(subject) % num_buckets``, and stable across versions and machines.

    Example:
        >>> bucket_of("u1")
        1
    """
    digest = hashlib.md5(subject.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little") % num_buckets
