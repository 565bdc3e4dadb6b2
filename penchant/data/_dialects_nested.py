"""Event logs whose rows are nested: one row may be an order of several products.

Field names are those that the vendors document; what each event becomes is told in the tests beside a fixture
in the vendor's own shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from penchant.data._times import micros_of

_NO_ITEM = frozenset({"search", "filter", "cart_view", "checkout", "signup", "promo_view", "promo_click"})


@dataclass(frozen=True)
class Parsed:
    """One event of a nested row, before any rule. ``price`` is in major units, of one piece or of all."""

    event_id: Any = None
    ts: int | None = None
    user_id: Any = None
    anonymous_id: Any = None
    session_id: Any = None
    kind: str | None = None
    item_id: Any = None
    price: Any = None
    is_total: bool = False
    stars: Any = None
    quantity: Any = None
    currency: Any = None
    query: Any = None
    text: Any = None
    recommendation_id: Any = None
    position: Any = None
    consent: str | None = None  # purposes, comma separated; None: nothing is said
    props: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None
    detail: str | None = None


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _first(*values: Any) -> Any:
    return next((v for v in values if v is not None and v != ""), None)


def _left_out(base: Parsed, word: Any) -> list[Parsed]:
    return [replace(base, fault="left_out", kind=None, detail=str(word))]


def _moment(base: Parsed, raw: Any) -> Parsed:
    ts = micros_of(raw)
    if raw is not None and ts is None:
        return replace(base, fault="unreadable_time", detail=str(raw)[:100])
    return replace(base, ts=ts)


def _numbered(base: Parsed, products: list[Parsed]) -> list[Parsed]:
    """Several products of one event: ids ``event#0``, ``event#1``, ...; a single one keeps the event's id."""
    if not products:
        return [base]
    if len(products) == 1 or base.event_id is None:
        return products
    return [replace(p, event_id=f"{base.event_id}#{n}") for n, p in enumerate(products)]


# --- Google Analytics 4, BigQuery export -----------------------------------------------------------------

_GA4 = {
    "view_item": "view",
    "select_item": "click",
    "view_item_list": "impression",
    "add_to_cart": "cart_add",
    "remove_from_cart": "cart_remove",
    "view_cart": "cart_view",
    "begin_checkout": "checkout",
    "add_to_wishlist": "wishlist",
    "purchase": "purchase",
    "refund": "refund",
    "search": "search",
    "view_search_results": "search",
    "view_promotion": "promo_view",
    "select_promotion": "promo_click",
    "sign_up": "signup",
}


def ga4(row: dict[str, Any]) -> list[Parsed]:
    """GA4 export: ``event_timestamp`` in microseconds, parameters and items as repeated records."""
    name = row.get("event_name")
    params = {p.get("key"): _param(p.get("value")) for p in _list(row.get("event_params"))}
    base = Parsed(
        user_id=_first(row.get("user_id")),
        anonymous_id=_first(row.get("user_pseudo_id")),
        session_id=_first(params.get("ga_session_id"), params.get("session_id")),
        currency=params.get("currency"),
        recommendation_id=params.get("recommendation_id"),
    )
    base = _moment(base, row.get("event_timestamp"))
    kind = _GA4.get(str(name))
    if kind is None:
        return _left_out(base, name)
    order = _first(_map(row.get("ecommerce")).get("transaction_id"), params.get("transaction_id"))
    event_id = (
        f"{order}#{kind}" if order not in {None, "(not set)"} and kind in {"purchase", "refund"} else None
    )
    base = replace(base, kind=kind, event_id=_first(params.get("event_id"), event_id))
    if kind == "search":
        return [replace(base, query=params.get("search_term"))]
    if kind in _NO_ITEM:
        return [base]
    products = [
        replace(
            base,
            item_id=_first(item.get("item_id"), item.get("item_name")),
            price=item.get("price"),
            quantity=item.get("quantity"),
            position=_place(_first(item.get("item_list_index"), item.get("index"))),
        )
        for item in _list(row.get("items"))
    ]
    return _numbered(base, products)


def _place(value: Any) -> Any:
    return value if str(value).isdigit() else None


def ga4_measurement(message: dict[str, Any]) -> list[Parsed]:
    """One event of a GA4 Measurement Protocol request, with the request's own fields around it in ``event``.

    It is put into the shape of the export and read as that. ``timestamp_micros`` may stand at the event or at the
    request; without either the event happens when it comes.
    """
    event = _map(message.get("event"))
    params = _map(event.get("params"))
    consent = _map(message.get("consent"))
    row = {
        "event_name": event.get("name"),
        "event_timestamp": _first(event.get("timestamp_micros"), message.get("timestamp_micros")),
        "user_id": message.get("user_id"),
        "user_pseudo_id": _first(message.get("client_id"), message.get("app_instance_id")),
        "event_params": [
            {"key": key, "value": {"string_value": value}}
            for key, value in params.items()
            if not isinstance(value, dict | list)
        ],
        "items": params.get("items"),
    }
    found = ga4(row)
    refuses = _denied(consent.get("ad_personalization")) or message.get("non_personalized_ads") is True
    return [replace(part, consent="analytics") for part in found] if refuses else found


def _denied(value: Any) -> bool:
    return str(value).upper() == "DENIED"


def _param(value: Any) -> Any:
    value = _map(value)
    return _first(*(value.get(k) for k in ("string_value", "int_value", "double_value", "float_value")))


# --- Segment and RudderStack, e-commerce spec v2 ------------------------------------------------------------

_SEGMENT = {
    "products searched": "search",
    "product list viewed": "impression",
    "product list filtered": "filter",
    "promotion viewed": "promo_view",
    "promotion clicked": "promo_click",
    "product clicked": "click",
    "product viewed": "view",
    "product added": "cart_add",
    "product removed": "cart_remove",
    "cart viewed": "cart_view",
    "checkout started": "checkout",
    "order completed": "purchase",
    "order refunded": "refund",
    "order cancelled": "refund",
    "product added to wishlist": "wishlist",
    "wishlist product added to cart": "cart_add",
    "product reviewed": "review",
    "signed up": "signup",
}


def segment(row: dict[str, Any]) -> list[Parsed]:
    """Segment or RudderStack ``track`` calls; other calls are left out."""
    props = _map(row.get("properties"))
    context = _map(row.get("context"))
    base = Parsed(
        event_id=row.get("messageId"),
        user_id=_first(row.get("userId")),
        anonymous_id=_first(row.get("anonymousId")),
        session_id=_first(props.get("session_id"), context.get("sessionId"), context.get("session_id")),
        currency=props.get("currency"),
        recommendation_id=props.get("recommendation_id"),
        consent=_segment_consent(context),
    )
    base = _segment_time(base, row)
    word = row.get("event")
    kind = _SEGMENT.get(str(word).strip().lower()) if row.get("type", "track") == "track" else None
    if kind is None:
        return _left_out(base, word or row.get("type"))
    base = replace(base, kind=kind)
    if kind in _NO_ITEM:
        return [replace(base, query=props.get("query"), props=_filters(props))]
    products = _list(props.get("products"))
    found = [_segment_product(base, p, props) for p in products or [props]]
    return _numbered(base, found)


def _segment_consent(context: dict[str, Any]) -> str | None:
    """The purposes among ``context.consent.categoryPreferences``; None where the message names none of ours."""
    told = {
        str(name).lower().replace("-", "_"): given
        for name, given in _map(_map(context.get("consent")).get("categoryPreferences")).items()
    }
    named = {purpose: [told[w] for w in words if w in told] for purpose, words in _PURPOSES.items()}
    if not any(named.values()):
        return None
    return ",".join(purpose for purpose, given in named.items() if any(g is True for g in given))


# How consent managers call our purposes.
_PURPOSES = {
    "personalise": ("personalise", "personalize", "personalisation", "personalization", "functional"),
    "analytics": ("analytics", "performance", "statistics"),
}


def _segment_product(base: Parsed, product: dict[str, Any], whole: dict[str, Any]) -> Parsed:
    item = _first(product.get("product_id"), product.get("productId"), product.get("sku"))
    if base.kind == "review":
        return replace(base, item_id=item, stars=product.get("rating"), text=product.get("review_body"))
    order = {"order_id": whole["order_id"]} if whole.get("order_id") is not None else {}
    return replace(
        base,
        item_id=item,
        price=product.get("price"),
        quantity=product.get("quantity"),
        position=product.get("position"),
        currency=_first(product.get("currency"), base.currency),
        props=order,
    )


def _filters(props: dict[str, Any]) -> dict[str, Any]:
    kept = ("filters", "sorts", "category", "order_id", "promotion_id")
    return {k: props[k] for k in kept if props.get(k) not in (None, "", [])}


def _segment_time(base: Parsed, row: dict[str, Any]) -> Parsed:
    """The clock-skew rule: when it was received, less the time between happening and sending.

    The phone's clock may be wrong, but it is wrong by the same amount at both moments. A ``timestamp`` that the
    service has already corrected this way is taken as it is.
    """
    if row.get("timestamp") is not None:
        return _moment(base, row["timestamp"])
    made, sent, received = (micros_of(row.get(k)) for k in ("originalTimestamp", "sentAt", "receivedAt"))
    if made is not None and sent is not None and received is not None:
        return replace(base, ts=received - (sent - made))
    return _moment(base, _first(row.get("originalTimestamp"), row.get("sentAt"), row.get("receivedAt")))


# --- Google Cloud Retail (Vertex AI Search for commerce), user events -------------------------------------------

_RETAIL = {
    "detail-page-view": "view",
    "add-to-cart": "cart_add",
    "remove-from-cart": "cart_remove",
    "purchase-complete": "purchase",
    "shopping-cart-page-view": "cart_view",
    "search": "search",
    "promotion-offered": "promo_view",
}


def google_retail(row: dict[str, Any]) -> list[Parsed]:
    """Google Retail user events; the attribution token becomes the recommendation id."""
    money = _map(row.get("purchaseTransaction"))
    base = Parsed(
        user_id=_first(_map(row.get("userInfo")).get("userId")),
        anonymous_id=_first(row.get("visitorId")),
        session_id=_first(row.get("sessionId")),
        currency=money.get("currencyCode"),
        recommendation_id=_first(row.get("attributionToken")),
    )
    base = _moment(base, row.get("eventTime"))
    kind = _RETAIL.get(str(row.get("eventType")))
    if kind is None:
        return _left_out(base, row.get("eventType"))
    event_id = f"{money['id']}#{kind}" if money.get("id") and kind == "purchase" else None
    base = replace(base, kind=kind, event_id=event_id)
    if kind in _NO_ITEM:
        return [replace(base, query=row.get("searchQuery"))]
    details = _list(row.get("productDetails"))
    only = money.get("revenue") if len(details) == 1 else None
    products = []
    for detail in details:
        product = _map(detail.get("product"))
        priced = _map(product.get("priceInfo"))
        price = priced.get("price")
        products.append(
            replace(
                base,
                item_id=product.get("id"),
                quantity=detail.get("quantity"),
                price=_first(price, only),
                is_total=price is None,
                currency=_first(priced.get("currencyCode"), base.currency),
            )
        )
    return _numbered(base, products)


# --- Shopify customer events (web pixels) -------------------------------------------------------------------------

_SHOPIFY = {
    "product_viewed": "view",
    "product_added_to_cart": "cart_add",
    "product_removed_from_cart": "cart_remove",
    "cart_viewed": "cart_view",
    "checkout_started": "checkout",
    "checkout_completed": "purchase",
    "search_submitted": "search",
    "collection_viewed": "impression",
}


def shopify(row: dict[str, Any]) -> list[Parsed]:
    """Shopify standard events; the item is the product, its variant stays a property."""
    data = _map(row.get("data"))
    checkout = _map(data.get("checkout"))
    customer = _first(
        _map(_map(checkout.get("order")).get("customer")).get("id"), _map(row.get("customer")).get("id")
    )
    base = Parsed(event_id=row.get("id"), anonymous_id=_first(row.get("clientId")), user_id=customer)
    base = _moment(base, row.get("timestamp"))
    kind = _SHOPIFY.get(str(row.get("name")))
    if kind is None:
        return _left_out(base, row.get("name"))
    base = replace(base, kind=kind)
    if kind == "search":
        return [replace(base, query=_map(data.get("searchResult")).get("query"))]
    if kind in _NO_ITEM:
        return [base]
    if kind == "purchase":
        base = replace(base, currency=checkout.get("currencyCode"))
        return _numbered(base, [_shopify_line(base, line) for line in _list(checkout.get("lineItems"))])
    if kind == "impression":
        shown = _list(_map(data.get("collection")).get("productVariants"))
        found = [replace(_shopify_variant(base, v), position=n) for n, v in enumerate(shown)]
        return _numbered(base, found)
    line = _map(data.get("cartLine"))
    variant = _map(_first(data.get("productVariant"), line.get("merchandise")))
    return [replace(_shopify_variant(base, variant), quantity=line.get("quantity"))]


def _shopify_variant(base: Parsed, variant: dict[str, Any]) -> Parsed:
    price = _map(variant.get("price"))
    return replace(
        base,
        item_id=_first(_map(variant.get("product")).get("id"), variant.get("id")),
        price=price.get("amount"),
        currency=_first(price.get("currencyCode"), base.currency),
        props={"variant_id": variant["id"]} if variant.get("id") is not None else {},
    )


def _shopify_line(base: Parsed, line: dict[str, Any]) -> Parsed:
    found = replace(_shopify_variant(base, _map(line.get("variant"))), quantity=line.get("quantity"))
    final = _map(line.get("finalLinePrice"))
    if final.get("amount") is None:
        return found
    return replace(
        found,
        price=final["amount"],
        is_total=True,
        currency=_first(final.get("currencyCode"), found.currency),
    )
