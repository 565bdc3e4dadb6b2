"""What an item brings when it is bought, as the catalogue says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import Vocabulary


def item_values(table: pa.Table, items: Vocabulary) -> npt.NDArray[np.float64] | None:
    """Value of each item in minor units, (N + 1,): price less cost; None where the catalogue has no price.

    Without a cost an item is taken to earn the usual share of its price (all of it where no cost is known), without a
    price in the catalogue's main currency the median. Number 0 is worth 0.

    Args:
        table: Rows of the catalogue, CATALOG_SCHEMA, in any order.
        items: Whose numbers the answer is indexed by.

    Example:
        >>> catalog = pa.table({"id": ["a", "b", "c"], "price": [100.0, 300.0, None],
        ...                     "cost": [60.0, None, None], "currency": ["EUR", "EUR", None]})
        >>> item_values(catalog, Vocabulary(["a", "b", "c", "d"])).tolist()
        [0.0, 40.0, 120.0, 80.0, 80.0]
    """
    number = items.numbers(table["id"].to_pylist())
    price, cost = (
        np.asarray(table[name].to_numpy(zero_copy_only=False), np.float64) for name in ("price", "cost")
    )
    known = (number > 0) & np.isfinite(price) & (price > 0)
    currency = table["currency"].combine_chunks()
    counts = pc.value_counts(currency.filter(pa.array(known)).drop_null()).to_pylist()
    if counts:
        main = max(counts, key=lambda count: (count["counts"], count["values"]))["values"]
        known &= np.asarray(pc.fill_null(pc.equal(currency, main), True).to_numpy(zero_copy_only=False))
    if not known.any():
        return None
    costed = known & np.isfinite(cost)
    usual = float(np.median(1 - cost[costed] / price[costed])) if costed.any() else 1.0
    earned = np.where(costed, price - cost, usual * price)
    value_N = np.full(len(items) + 1, float(np.median(earned[known])))
    value_N[number[known]] = earned[known]
    value_N[0] = 0.0
    return value_N
