"""Answers for many people as a Spark job: every worker reads the shop's folder and answers some buckets of people."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from penchant.core import now
from penchant.core.errors import MissingExtra, ModelError
from penchant.engine._batch import ANSWER_SCHEMA, Answered, Share, answer_share
from penchant.engine._serving import Serving
from penchant.engine._shop import Shop

if TYPE_CHECKING:
    from penchant.engine import _requests as rq


def answered_on_spark(
    shop: Shop, model_id: str, request: rq.RecommendRequest, shares: Sequence[Share], out: Path
) -> Iterator[Answered]:
    """Answer shares of people on ``[serve] spark``, in the order of the shares.

    A worker opens the shop read only and writes the answers of a share beside ``out``; one that is lost is answered
    again by another. What comes back to this process is read share by share, so that its memory does not grow with
    the number of people.

    Raises:
        MissingExtra: PySpark is not installed.
        ModelError: The job failed, or its workers found another model.
    """
    try:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise MissingExtra("spark", "answering on Spark") from None
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    shop.store.flush()
    master, path = shop.config.serve.spark, str(shop.path.resolve())
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.resolve().parent))

    def answer(share: Share) -> tuple[int, int, str]:
        return _answer_to_file(path, model_id, request, share, folder)

    own = SparkSession.getActiveSession() is None  # a session that was there before stays
    try:
        session = (
            SparkSession.builder.master(master)
            .appName(f"penchant recommend {shop.config.name}")
            .config("spark.ui.enabled", "false")
            .getOrCreate()
        )
        try:
            done = session.sparkContext.parallelize(shares, max(1, len(shares))).map(answer).collect()
        finally:
            if own:
                session.stop()
        for people, unknown, file in done:
            yield people, unknown, pq.read_table(file, schema=ANSWER_SCHEMA)
    except (PySparkException, Py4JError, OSError) as error:
        said = str(error).strip().splitlines()
        raise ModelError(
            "the Spark job failed",
            value=next(
                (line for line in said if "Error:" in line), said[0] if said else type(error).__name__
            )[:200],
            hint=f"see its log; check [serve] spark = {master!r} in shop.toml, or leave it empty to answer here",
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answer_to_file(
    path: str, model_id: str, request: rq.RecommendRequest, share: Share, folder: Path
) -> tuple[int, int, str]:
    """In a worker: answer one share into a file; its name appears when it is whole."""
    shop, serving = _opened(path, model_id)
    ranker = serving.ranker
    if ranker.model_id != model_id:
        raise ModelError("another model was promoted meanwhile", value=ranker.model_id, hint="ask again")
    file = folder / f"{share.bucket}.parquet"
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    people = unknown = 0
    with pq.ParquetWriter(temporary, ANSWER_SCHEMA, compression="zstd") as writer:
        for more, strangers, table in answer_share(shop, ranker, request, share):
            people, unknown = people + more, unknown + strangers
            writer.write_table(table)
    os.replace(temporary, file)
    return people, unknown, str(file)


@cache
def _opened(path: str, model_id: str) -> tuple[Shop, Serving]:
    """A shop as a worker reads it: opened once for all shares of a job that it answers."""
    shop = Shop.open(Path(path), readonly=True, clock=now)
    return shop, Serving(shop)
