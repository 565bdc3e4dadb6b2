"""Many people answered on Spark: the same slates as in one process."""

import os
import shutil

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant import Engine
from penchant.core.errors import ModelError
from penchant.engine._batch import shared_out
from penchant.engine._shop import read_config, write_config

NOW = 1_750_000_000_000_000
VARIES = ["recommendation_id"]  # drawn for every slate anew


def set_spark(folder, master):
    config = read_config(folder)
    serve = msgspec.structs.replace(config.serve, spark=master)
    write_config(folder, msgspec.structs.replace(config, serve=serve))


@pytest.fixture
def folder(tmp_path, walk):
    pq.write_table(pa.Table.from_pylist(walk(range(12), 1)), tmp_path / "old.parquet")
    with Engine.open(tmp_path / "shop", clock=lambda: NOW) as engine:
        engine.init()
        engine.ingest(files=[str(tmp_path / "old.parquet")])
        engine.promote(artifact=engine.train(models=["transitions"]).artifacts["transitions"])
    return tmp_path / "shop"


def answered(folder, out, users):
    with Engine.open(folder, clock=lambda: NOW) as engine:
        report = engine.recommend(users=users, out=str(out), k=5, seed=3)
    assert len(os.listdir(out.parent)) == len([name for name in os.listdir(out.parent) if name[0] != "."])
    return report, pq.read_table(out)


def test_people_are_shared_out_without_loss():
    names = [f"u{n}" for n in range(50)]
    shares = shared_out(names, 8)
    assert sorted(name for share in shares for name in share.names) == sorted(names)
    assert [share.bucket for share in shares] == sorted({share.bucket for share in shares})
    assert [share.bucket for share in shared_out(None, 8)] == list(range(8))


def test_the_same_seed_gives_the_same_slates(folder, tmp_path):
    _, once = answered(folder, tmp_path / "a.parquet", "all")
    _, twice = answered(folder, tmp_path / "b.parquet", "all")
    assert once.drop(VARIES).equals(twice.drop(VARIES))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Spark, py4j and pandas warn of one another
def test_spark_answers_as_one_process_does(folder, tmp_path):
    pytest.importorskip("pyspark.sql", reason="pip install 'penchant[spark]'")
    if shutil.which("java") is None:
        pytest.skip("PySpark needs Java 17")
    (tmp_path / "some.txt").write_text("u1\nu2\nnobody\nu33\n")
    for users in ("all", str(tmp_path / "some.txt")):
        set_spark(folder, "")
        report, here = answered(folder, tmp_path / "here.parquet", users)
        set_spark(folder, "local[2]")
        spread, there = answered(folder, tmp_path / "there.parquet", users)
        assert here.num_rows
        assert here.drop(VARIES).equals(there.drop(VARIES))
        assert (spread.users, spread.unknown_users, spread.rows) == (
            report.users,
            report.unknown_users,
            report.rows,
        )
    assert spread.unknown_users == 1
    set_spark(folder, "nowhere://x")
    with pytest.raises(ModelError, match="the Spark job failed"):
        answered(folder, tmp_path / "there.parquet", "all")
