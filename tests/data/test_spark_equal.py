"""The same Ibis expressions on PySpark and on DuckDB: equal results, cleaning and features alike."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.core import DAY, KINDS
from penchant.data import (
    DRAFT_SCHEMA,
    FeatureOptions,
    Settings,
    clean_expression,
    limits_of,
    raw_features,
)
from penchant.testing import toy_snapshot

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Spark, py4j and pandas warn of one another
]
NOW = 1_730_000_000_000_000


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    pyspark = pytest.importorskip("pyspark.sql", reason="pip install 'penchant[spark]'")
    if shutil.which("java") is None:
        pytest.skip("PySpark needs Java 17")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        pyspark.SparkSession.builder.master("local[2]")
        .appName("penchant-test")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    yield ibis.pyspark.connect(session)
    session.stop()


def test_features_are_equal(spark: Any) -> None:
    draw = np.random.default_rng(0)
    rows = [
        (
            f"u{draw.integers(30):02d}",
            None if draw.random() < 0.1 else "abcdefgh"[draw.integers(8)],
            float(draw.integers(0, 60 * 24)) / 24,
            KINDS[draw.integers(len(KINDS))],
        )
        for _ in range(1500)
    ]
    values = [[math.nan, 0.0, -250.0, 1999.0, 4.5, 0.1][draw.integers(6)] for _ in rows]
    categories = {
        letter: ["Food", "Toys > Soft", "Books > 'Odd' \"names\""][n % 3]
        for n, letter in enumerate("abcdefgh")
    }
    snapshot = toy_snapshot(rows, values=values, categories=categories)
    names = ["Food", "Toys", "Books"]
    here = raw_features(snapshot, FeatureOptions(), names)
    there = raw_features(snapshot, FeatureOptions(), names, backend=spark)
    assert here.column_names == there.column_names
    assert here.num_rows == 30
    for name in here.column_names:
        assert there[name].to_numpy().tobytes() == here[name].to_numpy().tobytes(), name


def draft(rows: int) -> pa.Table:
    """Drafts with everything wrong that can be wrong, and much that is right."""
    draw = np.random.default_rng(1)
    pools: dict[str, list[Any]] = {
        "event_id": [None, "e", "e2", ""],
        "ts": [None, NOW, NOW - DAY, NOW + 400 * DAY, 0, -5],
        "user_id": [None, "u1", "Ünal", "", "u" * 600, " padded "],
        "anonymous_id": [None, "c9", ""],
        "session_id": [None, "s"],
        "kind": [None, *KINDS, "dance"],
        "item_id": [None, "shoe-7", "", "NULL", "x\u0000y", "日本"],
        "value": [None, math.nan, math.inf, -1.0, 0.0, 5.0, 1999.5, 1e12, 123456.789],
        "quantity": [None, 0.0, 1.0, -3.0, 2.5, 1e9, math.nan],
        "currency": [None, "EUR", "USD", "euro"],
        "query": [None, "red shoes"],
        "text": [None, "fine\nreally"],
        "recommendation_id": [None, "r1"],
        "position": [None, 0, 7, -1, 10**9],
        "consent": [None, "personalise"],
        "props": [None, "{}"],
        "fault": [None, None, None, None],
        "detail": [None, None],
    }
    columns: dict[str, Any] = {"row": list(range(rows)), "part": [0] * rows}
    for name, pool in pools.items():
        columns[name] = [pool[place] for place in draw.integers(len(pool), size=rows)]
    return pa.table(columns, schema=DRAFT_SCHEMA)


def test_cleaning_is_equal(spark: Any, tmp_path: Path) -> None:
    path = tmp_path / "draft.parquet"
    pq.write_table(draft(3000), path)
    judged = {}
    for name, backend in (("duckdb", ibis.duckdb.connect()), ("spark", spark)):
        expression = clean_expression(backend.read_parquet(str(path)), limits_of(Settings(), NOW))
        # by way of files: Spark's own road to Arrow turns NaN into null
        backend.to_parquet(expression, tmp_path / name)
        judged[name] = pq.read_table(tmp_path / name).sort_by("row")
    here, there = judged["duckdb"], judged["spark"]
    assert here.column_names == there.column_names
    assert len(set(here["reason"].to_pylist())) > 5
    for name in here.column_names:
        # NaN is not equal to itself: compare as text
        assert list(map(str, there[name].to_pylist())) == list(map(str, here[name].to_pylist())), name
