"""Products with offers or variants inside them, as flat rows in our names."""

from __future__ import annotations

import re
from typing import Any

_OPTIONS = ("color", "size")


def is_nested(item: dict[str, Any]) -> bool:
    """Whether a row is schema.org JSON-LD, or a product with a structured price or variants."""
    return bool(
        "@type" in item
        or "offers" in item
        or isinstance(item.get("price"), dict)
        or _dicts(item.get("variants"))
        or _dicts(item.get("hasVariant"))
    )


def flat_products(item: dict[str, Any]) -> list[dict[str, Any]]:
    """One product as rows: one for each variant, with what the product says for all of them.

    Example:
        >>> price = {"amount": 5900, "currency": "USD"}
        >>> shoe = {"id": "p1", "name": "Shoe", "variants": [{"id": "v1", "price": price}]}
        >>> [(p["id"], p["item_group_id"], p["price"], p["minor"]) for p in flat_products(shoe)]
        [('v1', 'p1', 5900, True)]
    """
    if "@graph" in item:
        return [p for part in _dicts(item["@graph"]) for p in flat_products(part)]
    shared = _one(item)
    variants = _dicts(item.get("hasVariant")) or _dicts(item.get("variants"))
    if not variants:
        return [shared]
    out = []
    for variant in variants:
        own = {k: v for k, v in _one(variant).items() if v not in (None, "", {}, [])}
        merged = {**shared, **own, "attributes": {**shared["attributes"], **own.get("attributes", {})}}
        merged["item_group_id"] = shared.get("id") or shared.get("item_group_id")
        out.append(merged)
    return out


_KNOWN = frozenset(
    [
        "@context",
        "@type",
        "@id",
        "id",
        "sku",
        "productID",
        "productGroupID",
        "product_id",
        "name",
        "title",
        "description",
        "url",
        "link",
        "image",
        "images",
        "image_link",
        "brand",
        "gtin",
        "gtin13",
        "gtin12",
        "gtin8",
        "gtin14",
        "barcodes",
        "offers",
        "price",
        "currency",
        "availability",
        "category",
        "categories",
        "color",
        "size",
        "aggregateRating",
        "rating",
        "variants",
        "hasVariant",
        "itemCondition",
        "condition",
        "labels",
        "tags",
        "keywords",
        "inLanguage",
        "language",
        "releaseDate",
        "item_group_id",
        "isVariantOf",
        "options",
        "selected_options",
        "attributes",
        "list_price",
        "media",
        "barcode",
    ]
)


def _one(item: dict[str, Any]) -> dict[str, Any]:
    offer = next(iter(_dicts(item.get("offers"))), {})
    if "offers" in offer:  # an AggregateOffer lists the single ones
        offer = {**offer, **next(iter(_dicts(offer["offers"])), {})}
    amount, currency, minor = _price(item, offer)
    options = _options(item)
    rest = {k: v for k, v in item.items() if k not in _KNOWN and v not in (None, "")}
    extra = {k: v for k, v in options.items() if k.lower() not in _OPTIONS}
    return {
        "id": _first(item, "productID", "sku", "id", "product_id", "productGroupID", "@id")
        if "@type" in item
        else _first(item, "id", "product_id", "sku"),
        "item_group_id": _first(item, "item_group_id", "inProductGroupWithID"),
        "title": _first(item, "name", "title"),
        "description": _plain(item.get("description")),
        "link": _first(item, "url", "link"),
        "image_link": _image(item),
        "brand": _first(item, "brand"),
        "gtin": _first(item, "gtin", "gtin13", "gtin14", "gtin12", "gtin8", "barcode"),
        "price": amount,
        "currency": currency,
        "minor": minor,
        "availability": _availability(item, offer),
        "condition": _tail(_first(item, "itemCondition", "condition") or offer.get("itemCondition")),
        "category": _categories(_first(item, "category", "categories")),
        "color": _first(item, "color") or options.get("color") or options.get("Color"),
        "size": _first(item, "size") or options.get("size") or options.get("Size"),
        "rating": _rating(item),
        "publish_time": _first(item, "releaseDate"),
        "language": _first(item, "inLanguage", "language"),
        "labels": _first(item, "labels", "tags", "keywords"),
        "attributes": {**rest, **extra},
    }


def _dicts(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value]
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _first(item: dict[str, Any], *names: str) -> Any:
    return next((item[n] for n in names if item.get(n) not in (None, "", [])), None)


def _price(item: dict[str, Any], offer: dict[str, Any]) -> tuple[Any, Any, bool]:
    """Amount, currency, and whether it is in minor units: the agentic protocols say so, schema.org does not."""
    price = item.get("price")
    if isinstance(price, dict):
        return price.get("amount"), price.get("currency") or price.get("currency_code"), True
    if price is None:
        spec = next(iter(_dicts(offer.get("priceSpecification"))), {})
        amount = _first({**spec, **offer}, "price", "lowPrice")
        return amount, _first({**spec, **offer}, "priceCurrency"), False
    return price, _first(item, "currency", "priceCurrency"), False


def _availability(item: dict[str, Any], offer: dict[str, Any]) -> Any:
    value = item.get("availability", offer.get("availability"))
    if isinstance(value, dict):
        value = value.get("status", value.get("available"))
    return _tail(value) if isinstance(value, str) else value


def _tail(value: Any) -> Any:
    return re.sub(r"^https?://schema\.org/", "", value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    return _first(value, "plain", "text", "html", "markdown") if isinstance(value, dict) else value


def _image(item: dict[str, Any]) -> Any:
    image = _first(item, "image_link", "image", "images", "media")
    if isinstance(image, list):
        image = image[0]
    return image.get("url") or image.get("contentUrl") if isinstance(image, dict) else image


def _categories(value: Any) -> Any:
    if isinstance(value, list):
        return [v.get("name") or v.get("value") if isinstance(v, dict) else v for v in value]
    return value.get("name") if isinstance(value, dict) else value


def _rating(item: dict[str, Any]) -> Any:
    rating = _first(item, "aggregateRating", "rating")
    return _first(rating, "ratingValue", "value") if isinstance(rating, dict) else rating


def _options(item: dict[str, Any]) -> dict[str, Any]:
    found = dict(item["attributes"]) if isinstance(item.get("attributes"), dict) else {}
    for option in [*_dicts(item.get("options")), *_dicts(item.get("selected_options"))]:
        if option.get("name") and (option.get("value") or option.get("label")):
            found[str(option["name"])] = option.get("value") or option.get("label")
    return found
