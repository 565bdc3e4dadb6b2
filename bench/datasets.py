"""Public event logs in a shop's form: events, a catalogue where there is one, people where something is known of them.

None of them may be passed on: bring your own copies, one folder a set with the Parquet files named below.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Protocol = Literal["time split", "leave one out"]


@dataclass(frozen=True)
class Log:
    """What a shop would ingest."""

    events: pa.Table  # event_id, user_id, kind, item_id, timestamp (and value)
    items: pa.Table | None = None  # id and what is known of it
    people: pa.Table | None = None  # user_id and attributes


@dataclass(frozen=True)
class Dataset:
    """A public set: how to read it, and what may be asked of it. Sets without times are asked leave-one-out."""

    name: str
    folder: str
    read: Callable[[Path], Log]
    protocol: Protocol = "time split"
    size: str = "auto"
    note: str = ""


def _log(
    user: pa.ChunkedArray, item: pa.ChunkedArray, time: pa.Array, kind: pa.Array | str, **more: pa.Array
) -> pa.Table:
    """Events with ids by row, so that the same thing done twice counts twice."""
    rows = len(user)
    kinds = pa.repeat(kind, rows) if isinstance(kind, str) else kind
    return pa.table(
        {
            "event_id": pa.array(np.arange(rows)).cast(pa.string()),
            "user_id": user.cast(pa.string()),
            "kind": kinds,
            "item_id": item.cast(pa.string()),
            "timestamp": time.cast(pa.timestamp("us"), safe=False).cast(pa.timestamp("us", tz="UTC")),
            **more,
        }
    )


def _words(column: pa.ChunkedArray, names: dict[str, str]) -> pa.Array:
    return pa.array([names[word] for word in column.cast(pa.string()).to_pylist()])


def complete_journey(folder: Path) -> Log:
    """Groceries: what households bought, fuel and coupon lines left out."""
    products = pq.read_table(folder / "products.parquet")
    coupon = pc.fill_null(pc.starts_with(products["product_category"], "COUPON"), False)
    fuel = pc.fill_null(pc.equal(products["department"], "FUEL"), False)
    products = products.filter(pc.invert(pc.or_(coupon, fuel)))
    bought = pq.read_table(folder / "transactions.parquet")
    known = pc.is_in(bought["product_id"].cast(pa.int64()), value_set=products["product_id"].combine_chunks())
    bought = bought.filter(known)
    category = pc.binary_join_element_wise(
        products["department"],
        products["product_category"],
        products["product_type"],
        " > ",
        null_handling="skip",
    )
    return Log(
        _log(bought["household_id"], bought["product_id"], bought["transaction_timestamp"], "purchase"),
        pa.table(
            {
                "id": products["product_id"].cast(pa.string()),
                "category": category,
                "brand": products["brand"].cast(pa.string()),
            }
        ),
    )


def online_retail(folder: Path) -> Log:
    """Gifts, wholesale: what known customers bought, postage and other lines that are no product left out."""
    lines = pq.read_table(folder / "transactions.parquet")
    product = pc.match_substring_regex(lines["StockCode"], "^[0-9]{5}")
    bought = pc.and_(pc.greater(lines["Quantity"], 0), pc.is_valid(lines["CustomerID"]))
    lines = lines.filter(pc.and_(product, bought))
    titles = lines.group_by("StockCode").aggregate([("Description", "max")])
    return Log(
        _log(lines["CustomerID"], lines["StockCode"], lines["InvoiceDate"], "purchase"),
        pa.table(
            {
                "id": titles["StockCode"].cast(pa.string()),
                "title": titles["Description_max"].cast(pa.string()),
            }
        ),
    )


def tmall(folder: Path) -> Log:
    """A shopping site's clicks, carts and purchases, by brand, to the day."""
    events = pq.read_table(folder / "events.parquet").sort_by("row")
    names = {"click": "click", "buy": "purchase", "collect": "wishlist", "cart": "cart_add"}
    return Log(_log(events["user"], events["item"], events["date"], _words(events["event"], names)))


def trivago(folder: Path) -> Log:
    """Hotels looked at and clicked out to; searches and filters name no hotel and are left out."""
    events = pq.read_table(folder / "events.parquet")
    hotel = pc.match_substring_regex(pc.fill_null(events["reference"], ""), "^[0-9]+$")
    events = events.filter(hotel)
    kind = pc.if_else(pc.equal(events["action_type"], "clickout item"), "click", "view")
    return Log(_log(events["user_id"], events["reference"], events["time"], kind))


def yoochoose(folder: Path) -> Log:
    """Clicks of sessions."""
    clicks = pq.read_table(folder / "clicks.parquet")
    time = pc.multiply(clicks["Time"], 1e6).cast(pa.int64(), safe=False)
    return Log(_log(clicks["SessionId"], clicks["ItemId"], time, "click"))


def grocery(folder: Path) -> Log:
    """Reviewed groceries, to the day."""
    bought = pq.read_table(folder / "interactions.parquet")
    meta = pq.read_table(folder / "item_meta.parquet")
    items = pa.table(
        {"id": meta["item_id"].cast(pa.string()), "category": meta["i_category"].cast(pa.string())}
    )
    return Log(_log(bought["user_id"], bought["item_id"], bought["date"], "purchase"), items)


def movielens_100k(folder: Path) -> Log:
    """Ratings of films, with genres."""
    rated = pq.read_table(folder / "interactions.parquet")
    films = pq.read_table(folder / "items.parquet")
    time = pc.multiply(rated["timestamp"], 1_000_000)
    genres = pc.split_pattern(films["class"].cast(pa.string()), " ")
    return Log(
        _log(rated["user_id"], rated["item_id"], time, "review"),
        pa.table(
            {
                "id": films["item_id"].cast(pa.string()),
                "title": films["movie_title"].cast(pa.string()),
                "labels": genres,
            }
        ),
    )


def in_order(folder: Path) -> Log:
    """Sequences without times: the last event of everybody a day before one moment, the one before two days, ..."""
    rows = pq.read_table(folder / "interactions.parquet").sort_by(
        [("user", "ascending"), ("pos", "ascending")]
    )
    user, pos = rows["user"].to_numpy(), rows["pos"].to_numpy().astype(np.int64)
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    length = np.diff(np.r_[starts, len(user)])
    back = np.repeat(pos[starts + length - 1], length) - pos
    end = np.datetime64(dt.datetime(2024, 6, 1), "us")
    time = pa.array(end - back * np.timedelta64(86_400_000_000, "us"))
    attributes = folder / "item_attributes.parquet"
    items = None
    if attributes.exists():
        known = pq.read_table(attributes).group_by("item").aggregate([("attribute", "list")])
        items = pa.table(
            {
                "id": known["item"].cast(pa.string()),
                "labels": known["attribute_list"].cast(pa.list_(pa.string())),
            }
        )
    return Log(_log(rows["user"], rows["item"], time, "purchase"), items)


DATASETS = (
    Dataset("Tmall 2014", "alibaba-tmall-2014", tmall),
    Dataset("Yoochoose, first 100,000 clicks", "yoochoose-100k", yoochoose),
    Dataset("trivago 2019, 100,000 steps", "trivago-2019-val100k", trivago),
    Dataset("MovieLens-100k", "ml-100k", movielens_100k),
    Dataset("UCI Online Retail", "uci-online-retail", online_retail),
    Dataset("Amazon Grocery", "amazon14-grocery-train", grocery),
    Dataset("LastFM", "lastfm-s3", in_order, "leave one out"),
    Dataset("Amazon Beauty", "amazon14-beauty", in_order, "leave one out"),
    Dataset("Amazon Toys", "amazon14-toys", in_order, "leave one out"),
    Dataset("Yelp", "yelp-s3", in_order, "leave one out"),
    Dataset("Complete Journey", "complete-journey", complete_journey, size="small"),
    Dataset("MovieLens-1M", "ml-1m", in_order, "leave one out"),
)
