"""Catalogues and tables of users, in the shapes that feeds have."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.core import CATALOG_SCHEMA
from penchant.core.errors import UnknownColumns
from penchant.data import Mapping, Settings, open_source, read_catalog, read_users, recognise


def catalog(path, mappings=(), what=None, settings=None):
    source = open_source(path)
    recognised = recognise(source, mappings, what=what)
    assert recognised.what == "catalog"
    table, refused, report = read_catalog(source, recognised, settings or Settings())
    assert table.schema == CATALOG_SCHEMA
    assert report.events == report.accepted + report.refused == table.num_rows + refused.num_rows
    return (
        [{k: v for k, v in r.items() if v is not None} for r in table.to_pylist()],
        refused.to_pylist(),
        report,
    )


def test_google_merchant_feed(fixtures):
    rows, refused, _ = catalog(fixtures / "google_merchant.tsv")
    assert refused == []
    first, second = rows
    assert json.loads(first.pop("attributes")) == {"shipping_weight": "0.3 kg"}
    assert first == {
        "id": "TDdj3ms",
        "item_group_id": "AB12345",
        "title": "Mens Pique Polo",
        "description": "Soft <b>cotton</b>",  # kept as data; whoever shows it escapes it
        "link": "https://shop.example/p/1",
        "image_link": "https://shop.example/p/1.jpg",
        "brand": "Acme",
        "gtin": "3234567890126",
        "price": 1500.0,
        "currency": "USD",
        "availability": "in_stock",
        "condition": "new",
        "category": "Apparel & Accessories > Clothing > Shirts & Tops",
        "color": "Black",
        "size": "M",
        "labels": ["summer", "bestseller"],
    }
    assert (second["price"], second["currency"], second["availability"]) == (120050.0, "EUR", "out_of_stock")


def test_schema_org_product(fixtures):
    (row,), _, _ = catalog(fixtures / "schema_org.json")
    assert row == {
        "id": "0446310786",
        "title": "Executive Anvil",
        "description": "Sleeker than ACME's Classic Anvil",
        "image_link": "https://example.com/photos/1x1/photo.jpg",
        "brand": "ACME",
        "category": "Tools > Anvils",
        "rating": 4.4,
        "price": 11999.0,
        "currency": "USD",
        "availability": "in_stock",
        "condition": "UsedCondition",
        "attributes": '{"mpn":"925872"}',
    }


def test_products_with_variants(fixtures):
    rows, _, report = catalog(fixtures / "ucp.json")
    shared = {
        "item_group_id": "prod_abc123",
        "title": "Classic Canvas Sneakers",
        "description": "Comfortable canvas shoes",
        "link": "https://store.example.com/product/shoe-001",
        "image_link": "https://store.example.com/images/shoe-1.jpg",
        "brand": "ExampleBrand",
        "category": "Shoes > Sneakers > Canvas",
        "color": "White",
        "currency": "USD",
    }
    assert rows == [
        {**shared, "id": "var_001", "size": "8", "price": 5900.0, "availability": "in_stock"},
        {
            **shared,
            "id": "var_002",
            "size": "9",
            "price": 6100.0,
            "availability": "out_of_stock",
            "attributes": '{"fit":"wide"}',
        },
    ]
    assert (report.rows, report.events) == (1, 2)


def test_a_table_of_departments(tmp_path):
    table = {"product_id": [25671], "manufacturer_id": [2], "department": ["GROCERY"], "brand": ["National"]}
    more = {"product_category": ["FRZN ICE"], "product_type": ["ICE - CRUSHED"], "package_size": ["22 LB"]}
    pq.write_table(pa.table({**table, **more}), tmp_path / "products.parquet")
    (row,), _, _ = catalog(tmp_path / "products.parquet")
    assert row["id"] == "25671"
    assert row["category"] == "GROCERY > FRZN ICE > ICE - CRUSHED"
    assert json.loads(row["attributes"]) == {"manufacturer_id": 2, "package_size": "22 LB"}


def test_ids_and_lists_of_labels(tmp_path):
    table = pa.table({"id": ["a", "b"], "labels": pa.array([["1", "2"], []], pa.list_(pa.string()))})
    pq.write_table(table, tmp_path / "items.parquet")
    rows, _, _ = catalog(tmp_path / "items.parquet")
    assert rows == [{"id": "a", "labels": ["1", "2"]}, {"id": "b"}]


def test_bad_products_are_refused_or_kept_with_what_is_right(tmp_path):
    path = tmp_path / "items.csv"
    rows = [
        "a,Shoe,cheap",
        ",Hat,1.00",
        "b,Old,1.00",
        f"{'x' * 600},Long,1.00",
        "b,New,-2.00",
        '"c\nd",Odd,1.00',
    ]
    path.write_text("id,title,price\n" + "\n".join(rows) + "\n")
    kept, refused, report = catalog(path)
    assert [(r["id"], r["title"], r.get("price")) for r in kept] == [("a", "Shoe", None), ("b", "New", None)]
    assert json.loads(kept[0]["attributes"]) == {"price": "cheap"}
    assert sorted((r["row"], r["reason"]) for r in refused) == [
        (2, "missing_id"),
        (3, "replaced"),
        (4, "id_too_long"),
        (6, "bad_id"),
    ]
    assert {r.code: r.count for r in report.remarks} == {"bad_price": 2}


def test_a_million_characters_are_cut_and_told(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"id": "a", "title": "x", "description": "y" * 1_000_000}))
    (row,), _, report = catalog(path)
    assert len(row["description"]) == 65_536
    assert report.remarks[0].code == "truncated"


def test_a_log_serves_as_a_catalogue_only_by_a_mapping(tmp_path):
    path = tmp_path / "orders.csv"
    path.write_text("CustomerID,StockCode,Description,InvoiceDate,UnitPrice\n7,a1,Lamp,2024-05-01,2.55\n")
    with pytest.raises(UnknownColumns) as caught:
        recognise(open_source(path), what="catalog")
    proposal: Mapping = caught.value.proposal
    assert proposal.fields == {"id": "StockCode", "title": "Description", "price": "UnitPrice"}
    rows, _, report = catalog(path, (proposal,), "catalog")
    assert rows == [{"id": "a1", "title": "Lamp", "price": 255.0}]
    assert report.ignored == ["CustomerID", "InvoiceDate"]


def users(path, what=None):
    source = open_source(path)
    recognised = recognise(source, what=what)
    assert recognised.what == "users"
    table, refused, report = read_users(source, recognised, Settings())
    assert report.events == report.accepted + report.refused == table.num_rows + refused.num_rows
    return table, refused.to_pylist(), report


def test_users_with_counts_and_a_label(tmp_path):
    path = tmp_path / "users.csv"
    path.write_text(
        "user_id,browse_count,purchase_count,review_count,city,interest_label\nu2,10,5,3,Oslo,fashion\n"
        "u1,7,,0,,food|technology\n,1,1,1,Rome,food\nu2,11,5,3,Oslo,fashion\n"
    )
    table, refused, _ = users(path)
    assert table.to_pylist() == [
        {
            "user_id": "u1",
            "browse_count": 7.0,
            "purchase_count": None,
            "review_count": 0.0,
            "city": None,
            "interest_label": ["food", "technology"],
        },
        {
            "user_id": "u2",
            "browse_count": 11.0,
            "purchase_count": 5.0,
            "review_count": 3.0,
            "city": "Oslo",
            "interest_label": ["fashion"],
        },
    ]
    assert [(r["row"], r["reason"], r["subject"]) for r in refused] == [
        (1, "replaced", "u2"),
        (3, "missing_id", None),
    ]


def test_households_from_parquet_keep_their_types(tmp_path):
    table = pa.table(
        {"household_id": [1, 1001], "age": ["65+", "45-54"], "kids": [0, 2], "tags": [["a"], []]}
    )
    pq.write_table(table, tmp_path / "demographics.parquet")
    found, _, _ = users(tmp_path / "demographics.parquet")
    assert found.schema.field("kids").type == pa.int64()
    assert found.to_pylist()[0] == {"user_id": "1", "age": "65+", "kids": 0, "tags": ["a"]}


def test_an_id_alone_is_a_user_only_when_we_are_told(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("id,gender,age\n1,M,31\n")
    with pytest.raises(UnknownColumns):
        recognise(open_source(path))
    assert users(path, what="users")[0].to_pylist() == [{"user_id": "1", "gender": "M", "age": 31.0}]
