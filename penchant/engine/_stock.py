"""What changes many times a day: availability, quantities and prices, without reading the catalogue's files again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import CATALOG_SCHEMA
from penchant.engine import _requests as rq

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

MOVING = ("availability", "available_quantity", "price", "cost")  # what no model learns from


def change_stock(shop: Shop, request: rq.StockRequest) -> rq.StockReport:
    """Write what is given of each item into the catalogue; of one item named twice the last word counts."""
    catalog = shop.store.catalog()
    given = {item.item_id: item for item in request.items}
    place = pc.index_in(pa.array(list(given), pa.string()), value_set=catalog["id"].combine_chunks())
    unknown = [item_id for item_id, at in zip(given, place.to_pylist(), strict=True) if at is None]
    rows = catalog.take(place.drop_null()).to_pylist()
    for row in rows:
        item = given[row["id"]]
        availability = item.availability
        if availability is None and item.available_quantity is not None:
            availability = "in_stock" if item.available_quantity > 0 else "out_of_stock"
        changes = {
            "availability": availability,
            "available_quantity": item.available_quantity,
            "price": item.price,
            "cost": item.cost,
        }
        row.update({name: value for name, value in changes.items() if value is not None})
    if rows:
        shop.store.put_catalog(pa.Table.from_pylist(rows, CATALOG_SCHEMA))
    return rq.StockReport(changed=len(rows), unknown=unknown)


def same_but_for_stock(old: pa.Table, new: pa.Table) -> bool:
    """Whether two versions of a catalogue tell apart only what moves: models and vocabularies stay as they are."""
    names = [name for name in CATALOG_SCHEMA.names if name not in MOVING]
    return old.num_rows == new.num_rows and bool(np.all([old[n].equals(new[n]) for n in names]))
