"""What can happen in a shop, as a closed list with stable numbers."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, get_args


class EventKind(StrEnum):
    """The kinds of event. ``code`` is stable on disk: only ever append to this list."""

    IMPRESSION = "impression"
    CLICK = "click"
    VIEW = "view"
    SEARCH = "search"
    FILTER = "filter"
    WISHLIST = "wishlist"
    CART_ADD = "cart_add"
    CART_REMOVE = "cart_remove"
    CART_VIEW = "cart_view"
    CHECKOUT = "checkout"
    PURCHASE = "purchase"
    REFUND = "refund"
    REVIEW = "review"
    PROMO_VIEW = "promo_view"
    PROMO_CLICK = "promo_click"
    SIGNUP = "signup"
    NOT_INTERESTED = "not_interested"
    PREFERENCE = "preference"

    @property
    def code(self) -> int:
        """The number of this kind in arrays: 1 for the first; 0 is padding."""
        return KIND_CODES[self.value]


KINDS: tuple[str, ...] = tuple(kind.value for kind in EventKind)
KIND_CODES: dict[str, int] = {kind: number for number, kind in enumerate(KINDS, start=1)}

# An event of these kinds says "this person turned to this item": it is what next-item models predict.
TargetKind = Literal["click", "view", "wishlist", "cart_add", "purchase", "review"]
TARGET_KINDS: frozenset[str] = frozenset(get_args(TargetKind))
# These enter a person's sequence. An impression is what we showed, not what the person did: it is read beside it.
SEQUENCE_KINDS = TARGET_KINDS | {"cart_remove", "refund", "checkout"}
# These say what a person wants of us, and are no behaviour: models do not read them.
WISH_KINDS = frozenset({"not_interested", "preference"})
# What a model may be asked: what is next of one of these kinds, or of any. The number goes into a batch.
Target = Literal["any", TargetKind]
ASKED_CODES: dict[Target, int] = {target: KIND_CODES.get(target, 0) for target in get_args(Target)}
TARGET_CODES: tuple[int, ...] = tuple(sorted(KIND_CODES[kind] for kind in TARGET_KINDS))
SEQUENCE_CODES: tuple[int, ...] = tuple(sorted(KIND_CODES[kind] for kind in SEQUENCE_KINDS))
