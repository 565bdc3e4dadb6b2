"""A mapping says which column of a file is what; it lives in ``shop.toml`` as ``[[mapping]]``."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
import tomli_w
from msgspec import Meta

from penchant.core import CATALOG_SCHEMA, EVENT_SCHEMA, KINDS, EventKind, Noun
from penchant.core.errors import InputError
from penchant.data._settings import Duplicates

What = Literal["events", "catalog", "users"]

# Our names an event mapping may fill. `price` (of one piece), `rating` (stars) and `impressions` (a list of
# shown items) have no column of their own at rest: they become `value`, or further events.
EVENT_FIELDS: frozenset[str] = frozenset(EVENT_SCHEMA.names) - {"subject"} | {
    "price",
    "rating",
    "impressions",
}
CATALOG_FIELDS: frozenset[str] = frozenset(CATALOG_SCHEMA.names) - {"attributes"}
FIELDS: dict[str, frozenset[str]] = {"events": EVENT_FIELDS, "catalog": CATALOG_FIELDS}
_LISTS = frozenset({"category", "labels"})  # fields that may be filled from several columns

# What other people call our kinds, after lower-casing and turning spaces and hyphens into underscores.
KIND_WORDS: dict[str, str] = {
    **{kind: kind for kind in KINDS},
    **dict.fromkeys(
        [
            "product_view",
            "item_view",
            "view_item",
            "detail_view",
            "detail_page_view",
            "pageview_product",
            "viewed",
            "browse",
            "read",
            "watch",
            "product_viewed",
            "pv",
            "item_viewed",
            "product_detail",
        ],
        "view",
    ),
    **dict.fromkeys(
        ["clicked", "product_click", "item_click", "select_item", "product_clicked", "click_item", "open"],
        "click",
    ),
    **dict.fromkeys(
        ["shown", "impressions", "exposure", "expose", "display", "view_item_list"], "impression"
    ),
    **dict.fromkeys(
        ["buy", "bought", "order", "ordered", "transaction", "sale", "sold", "purchased", "pay", "paid"],
        "purchase",
    ),
    **dict.fromkeys(["conversion", "order_completed", "purchase_complete", "checkout_completed"], "purchase"),
    **dict.fromkeys(
        ["cart", "addtocart", "add_to_cart", "add_cart", "basket", "cart_added", "product_added", "atc"],
        "cart_add",
    ),
    **dict.fromkeys(["add_to_basket", "basket_add", "added_to_cart", "product_added_to_cart"], "cart_add"),
    **dict.fromkeys(
        ["removefromcart", "remove_from_cart", "product_removed", "cart_removed", "remove_cart"],
        "cart_remove",
    ),
    **dict.fromkeys(["view_cart", "cart_viewed", "shopping_cart_page_view"], "cart_view"),
    **dict.fromkeys(["begin_checkout", "checkout_started", "checkout_start", "start_checkout"], "checkout"),
    **dict.fromkeys(
        [
            "collect",
            "fav",
            "favorite",
            "favourite",
            "like",
            "liked",
            "wish",
            "save",
            "star",
            "add_to_wishlist",
        ],
        "wishlist",
    ),
    **dict.fromkeys(["return", "returned", "refunded", "order_refunded", "chargeback"], "refund"),
    **dict.fromkeys(["rate", "rating", "rated", "comment", "product_reviewed", "reviewed"], "review"),
    **dict.fromkeys(
        ["searched", "query", "products_searched", "search_submitted", "view_search_results"], "search"
    ),
    **dict.fromkeys(["filtered", "filter_applied", "sort", "product_list_filtered"], "filter"),
    **dict.fromkeys(["sign_up", "register", "registration", "signed_up"], "signup"),
    **dict.fromkeys(["view_promotion", "promotion_viewed"], "promo_view"),
    **dict.fromkeys(["select_promotion", "promotion_clicked"], "promo_click"),
}


class Mapping(Noun, frozen=True):
    """Which column of a file is what.

    ``fields`` maps our name to the file's column (a list of columns for ``category`` and ``labels``). The
    same column as ``item_id`` and ``query`` means: an item where the kind needs one, a query elsewhere.

    Example:
        >>> Mapping(name="log", fields={"user_id": "user", "item_id": "item", "ts": "date"}, kind="view").what
        'events'
    """

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    fields: dict[str, str | list[str]]
    what: What = "events"
    files: str | None = None  # only files whose name fits this pattern, as in "orders-*.csv"
    kind: EventKind | None = None  # of rows without a kind of their own
    kinds: dict[str, str] = {}  # their word -> our kind, or "-" to leave such rows out (they are counted)
    time: str = "auto"  # auto | iso | day | s | ms | us | ns | ordinal | a format with % such as %d/%m/%Y
    timezone: str = "UTC"  # of times that do not name their own
    money: Literal["major", "minor"] = "major"  # 2.55 means 255 minor units, or is in minor units already
    duplicates: Duplicates | None = None  # overrides the shop's setting for these files
    integer_ids: bool = False  # ids such as "17850.0" are whole numbers written by a spreadsheet
    separator: str = "|"  # between the entries of a list in one cell
    not_items: list[str] = []  # item codes that are no products, as in "POST" or "GIFT*": rows are refused
    props: list[str] = []  # columns kept as they are
    ignore: list[str] = []  # columns left out on purpose

    def __post_init__(self) -> None:
        known = FIELDS.get(self.what)
        for ours, theirs in self.fields.items():
            if known is not None and ours not in known:
                raise InputError(
                    f"mapping {self.name!r} fills an unknown field",
                    value=ours,
                    hint="use one of " + ", ".join(sorted(known)),
                    path="$.fields",
                )
            if isinstance(theirs, list) and ours not in _LISTS:
                raise InputError(
                    f"mapping {self.name!r}: {ours} takes one column", value=theirs, hint="name one column"
                )
        for word, kind in self.kinds.items():
            if kind != "-" and kind not in KINDS:
                raise InputError(
                    f"mapping {self.name!r} maps {word!r} to an unknown kind",
                    value=kind,
                    hint="use one of " + ", ".join(KINDS) + ' or "-" to leave such rows out',
                    path="$.kinds",
                )

    @property
    def columns(self) -> list[str]:
        """Every column of the file that the mapping reads, each once."""
        return list(dict.fromkeys(self._columns()))

    def _columns(self) -> Iterable[str]:
        for theirs in self.fields.values():
            yield from [theirs] if isinstance(theirs, str) else theirs
        yield from self.props

    def fits(self, columns: Iterable[str], file_name: str) -> bool:
        """Whether the mapping is for a file of this name with these columns."""
        if self.files is not None and not fnmatch.fnmatch(file_name, self.files):
            return False
        return set(self.columns) <= set(columns)

    def column(self, ours: str) -> str | None:
        """The file's column for one of our names; None when it has none."""
        theirs = self.fields.get(ours)
        return theirs[0] if isinstance(theirs, list) else theirs

    def kind_of(self, word: str) -> str:
        """Our kind for their word; "-" = left out on purpose, the word itself when it is not known.

        Example:
            >>> log = Mapping(name="log", fields={}, kinds={"99": "purchase"})
            >>> log.kind_of("99"), log.kind_of("Add To Cart"), log.kind_of("dance")
            ('purchase', 'cart_add', 'dance')
        """
        if word in self.kinds:
            return self.kinds[word]
        return KIND_WORDS.get(word.strip().lower().replace(" ", "_").replace("-", "_"), word)

    def toml(self) -> str:
        """The mapping as a ``[[mapping]]`` table, ready to be added to ``shop.toml`` and edited."""
        return tomli_w.dumps({"mapping": [mapping_table(self)]})


def mapping_table(mapping: Mapping) -> dict[str, Any]:
    """A mapping as plain values, without what is left at its default."""
    plain = msgspec.to_builtins(mapping)
    usual = msgspec.to_builtins(Mapping(name="x", fields={}))
    return {k: v for k, v in plain.items() if k in {"name", "fields", "what"} or v != usual[k]}


def mappings_from(tables: list[dict[str, Any]]) -> list[Mapping]:
    """Read the ``[[mapping]]`` tables of ``shop.toml``; a wrong key is an ``InputError`` that names it."""
    found = []
    for number, table in enumerate(tables):
        try:
            found.append(msgspec.convert(table, Mapping))
        except msgspec.ValidationError as error:
            raise InputError(
                f"[[mapping]] number {number + 1} of shop.toml is wrong: {error}",
                hint="correct or remove that key",
                path=f"mapping[{number}]",
            ) from error
    return found
