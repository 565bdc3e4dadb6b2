"""Recommendations for many people at once: read bucket by bucket, scored in batches, written as Parquet."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penchant.core import (
    HISTORY_SHOWN,
    KIND_CODES,
    TARGET_CODES,
    History,
    Progress,
    bucket_of,
    micros,
)
from penchant.core.errors import InputError, ModelError, NotFound
from penchant.engine import _requests as rq
from penchant.engine._answer_ids import answer_id
from penchant.engine._live import given_away, reasons
from penchant.engine._offer import allowed, draw_from, judged, offered, question
from penchant.engine._people import may, no_history, own_name
from penchant.engine._recount import is_stale, recount
from penchant.engine._scenarios import as_asked
from penchant.engine._serving import Ranker, Serving
from penchant.engine._shelves import BY_RULES
from penchant.store import kept_in_histories, shown_in_histories

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

ANSWER_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("rank", pa.int32()),
        ("item_id", pa.string()),
        ("score", pa.float32()),
        ("probability", pa.float64()),
        ("odds", pa.float64()),
        ("explored", pa.bool_()),
        ("reason", pa.string()),
        ("recommendation_id", pa.string()),
        ("policy_id", pa.string()),
        ("model_id", pa.string()),
        ("surface", pa.string()),
        ("ts", pa.int64()),
        ("seed", pa.int64()),
        ("degraded", pa.bool_()),
    ]
)
_CELLS = 8_000_000  # scores held at once: 32 MB of float32


def read_users(path: str) -> list[str]:
    """User ids, one a line; blank lines are skipped, repeats counted once.

    Raises:
        NotFound: There is no such file.
        InputError: It is not text, or holds no id.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()  # some tools begin a file with a mark
    except FileNotFoundError:
        raise NotFound(
            "no such file", value=path, hint="give a file with one user id a line, or: all"
        ) from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise InputError("this is not a text file", value=path, hint="give one user id a line") from None
    users = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not users:
        raise InputError("the file names no user", value=path, hint="give one user id a line")
    return users


def bucket_histories(shop: Shop, bucket: int, wanted: set[str] | None, limit: int) -> Iterator[History]:
    """The histories of one bucket's people, in order of their ids; journal included."""
    columns = ["subject", "ts", "kind", "item_id", "value", "event_id"]
    table = shop.store.scan(bucket=bucket, columns=columns)
    if not table.num_rows:
        return
    subject = table["subject"].combine_chunks().dictionary_encode()
    names = subject.dictionary.to_pylist()
    code = np.asarray(subject.indices)
    starts = np.flatnonzero(np.r_[True, code[1:] != code[:-1]])
    named = code[starts]
    shown = _Impressions(table)
    # Who did nothing that models read is answered all the same, with an empty history.
    read = kept_in_histories(table).to_numpy(zero_copy_only=False)
    kept = np.concatenate([[0], np.cumsum(read)])
    starts, ends = kept[starts], kept[np.r_[starts[1:], len(code)]]
    table = table.filter(pa.array(read))
    ts = table["ts"].to_numpy()
    kinds = table["kind"].combine_chunks().dictionary_encode()
    codes = np.array([KIND_CODES.get(kind, 0) for kind in kinds.dictionary.to_pylist()] or [0], np.uint8)
    kind = codes[np.asarray(kinds.indices)]
    value = np.asarray(table["value"].to_numpy(), np.float32)
    item = table["item_id"].combine_chunks()
    for person, start, end in zip(named, starts, ends, strict=True):
        name = names[person]
        if wanted is not None and name not in wanted:
            continue
        cut = max(start, end - limit)
        turned = pa.array(np.isin(kind[start:cut], TARGET_CODES))
        older = item.slice(start, cut - start).filter(turned).unique().to_pylist()
        yield History(
            subject=name,
            ts=ts[cut:end],
            kind=kind[cut:end],
            item=item.slice(cut, end - cut).to_pylist(),
            value=value[cut:end],
            event_id=[],
            older_items=frozenset(older),
            **shown.of(name),
        )


class _Impressions:
    """What the people of one bucket were shown: rows of a table ordered by person and time."""

    def __init__(self, table: pa.Table) -> None:
        rows = table.filter(shown_in_histories(table))
        self.item, self.ts = rows["item_id"].combine_chunks(), rows["ts"].to_numpy()
        runs = pc.run_end_encode(rows["subject"].combine_chunks(), run_end_type=pa.int64())
        ends = runs.run_ends.to_pylist()
        self.place = dict(zip(runs.values.to_pylist(), zip([0, *ends], ends, strict=False), strict=True))

    def of(self, subject: str) -> dict[str, Any]:
        """The newest of one person, as fields of a ``History``."""
        start, end = self.place.get(subject, (0, 0))
        start = max(start, end - HISTORY_SHOWN)
        return {"shown_item": self.item.slice(start, end - start).to_pylist(), "shown_ts": self.ts[start:end]}


def recommend_many(
    shop: Shop, serving: Serving, request: rq.RecommendRequest, progress: Progress
) -> rq.BatchReport:
    """Answer many people; the file appears only when it is whole, and is kept in the decision log too."""
    request = as_asked(shop, request)
    if request.out is None:
        raise InputError("where shall the answers go?", hint="give --out FILE.parquet", path="$.out")
    if request.user_id or request.anonymous_id:
        raise InputError("one person or many, not both", hint="drop user_id or users", path="$.users")
    if request.cursor is not None or request.explain:
        raise InputError(
            "pages and stages are of one person's answer",
            hint="leave cursor and explain away",
            path="$.users",
        )
    if request.shelf not in ("personal", *BY_RULES):
        raise InputError(
            "this shelf is asked for one person at a time",
            value=request.shelf,
            hint=f"of many people ask for: personal, {', '.join(BY_RULES)}",
            path="$.shelf",
        )
    started, out = time.perf_counter(), Path(request.out)
    given = None if request.users == "all" else {own_name(shop, n): n for n in read_users(str(request.users))}
    names = None if given is None else list(given)
    if request.seed is None:  # one for all of them, wherever they are answered
        request = msgspec.structs.replace(request, seed=secrets.randbits(32))
    if request.now is None:
        moment = dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=shop.clock())
        request = msgspec.structs.replace(request, now=moment)
    _bring_up_to_date(shop, serving, progress)
    ranker = serving.ranker
    shares = shared_out(names, shop.store.num_buckets)
    if shop.config.serve.spark:
        from penchant.engine._spark import answered_on_spark

        answered = answered_on_spark(shop, ranker.model_id, request, shares, out)
    else:
        answered = (part for share in shares for part in answer_share(shop, ranker, request, share))
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    counts = dict.fromkeys(("users", "rows", "unknown"), 0)
    policy_id = ""
    try:
        with pq.ParquetWriter(temporary, ANSWER_SCHEMA, compression="zstd") as writer:
            for people, unknown, table in answered:
                for name, more in zip(counts, (people, table.num_rows, unknown), strict=True):
                    counts[name] += more
                policy_id = table["policy_id"][0].as_py() if table.num_rows else policy_id
                writer.write_table(table)
                progress("recommending", counts["users"], len(names) if names else None, {})
        progress("recommending", counts["users"], counts["users"], {})
        shop.store.log_batch(temporary)
        if given is not None and shop.pseudonyms is not None:
            _as_given(temporary, given)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return rq.BatchReport(
        out=str(out),
        users=counts["users"],
        rows=counts["rows"],
        unknown_users=counts["unknown"],
        model_id=ranker.model_id,
        policy_id=policy_id,
        degraded=ranker.degraded,
        seconds=round(time.perf_counter() - started, 3),
    )


def _as_given(path: Path, given: dict[str, str]) -> None:
    """Put the ids that the caller gave in place of their pseudonyms."""
    table = pq.read_table(path)
    names = pa.array([given[name] for name in table["user_id"].to_pylist()], pa.string())
    pq.write_table(table.set_column(0, table.schema.field(0), names), path, compression="zstd")


def _bring_up_to_date(shop: Shop, serving: Serving, progress: Progress) -> None:
    """Count again where events have come in and the shop wants it."""
    if not shop.config.serve.recount:
        return
    try:
        if is_stale(shop):
            recount(shop, progress)
    except ModelError:
        pass  # a broken model must not stop a batch: what can be used answers, marked as degraded
    serving.refresh()


@dataclass(frozen=True)
class Share:
    """A part of the people that can be answered by itself, wherever the shop's folder can be read."""

    bucket: int
    names: list[str] | None  # None: everybody of the bucket


def shared_out(names: list[str] | None, buckets: int) -> list[Share]:
    """Everybody, or the people named, bucket by bucket; buckets without anybody named are left out."""
    if names is None:
        return [Share(bucket, None) for bucket in range(buckets)]
    by_bucket: dict[int, list[str]] = {}
    for name in names:
        by_bucket.setdefault(bucket_of(name, buckets), []).append(name)
    return [Share(bucket, by_bucket[bucket]) for bucket in sorted(by_bucket)]


Answered = tuple[int, int, pa.Table]  # people, how many of them are unknown, their slates by ANSWER_SCHEMA


def answer_share(
    shop: Shop, ranker: Ranker, request: rq.RecommendRequest, share: Share
) -> Iterator[Answered]:
    """Answer the people of a share in batches, those without events last, with empty histories.

    The same request, with its seed and moment, gives the same slates wherever it is answered.
    """
    size = max(1, min(512, _CELLS // (len(ranker.items) + 1)))
    wanted = None if share.names is None else set(share.names)
    known = bucket_histories(shop, share.bucket, wanted, ranker.max_history)
    while histories := list(itertools.islice(known, size)):
        if wanted is not None:
            wanted.difference_update(history.subject for history in histories)
        histories = [h if may(shop, h.subject, "personalise") else no_history(h.subject) for h in histories]
        yield len(histories), 0, _answer(shop, ranker, request, histories)
    strangers = iter(sorted(wanted or ()))
    while names := list(itertools.islice(strangers, size)):
        histories = [shop.store.history(name, 1) for name in names]
        yield len(histories), len(histories), _answer(shop, ranker, request, histories)


def _answer(
    shop: Shop, ranker: Ranker, request: rq.RecommendRequest, histories: Sequence[History]
) -> pa.Table:
    """The slates of some people as rows."""
    assert request.now is not None
    assert request.seed is not None
    now, seed = micros(request.now), request.seed
    if request.purpose != "personalise":
        histories = [no_history(history.subject) for history in histories]
    target, by_value = question(shop, ranker, request)
    rule = ranker.answering[target].seen if request.seen == "auto" else request.seen
    scores_BN = [None] * len(histories) if ranker.searches else ranker.scores(histories, target)
    shared_N = allowed(ranker, request)
    ids = ranker.items.ids
    columns: dict[str, list[object]] = {name: [] for name in ANSWER_SCHEMA.names}
    for history, score_N in zip(histories, scores_BN, strict=True):
        allowed_N = shared_N.copy()
        verdict = judged(shop, ranker, request, history)
        if verdict is not None:
            allowed_N &= verdict.kept_N
        offer = offered(shop, ranker, request, history, allowed_N, rule, score_N, verdict)
        candidates = offer.candidates
        drawn = draw_from(ranker, request, history.subject, offer, now, seed, by_value)
        choice = drawn.choice
        chosen_K = candidates.item_N[choice.index_K]
        why = reasons(ranker, history, chosen_K, shop.config.serve.reasons)
        rows = list(
            zip(
                chosen_K.tolist(),
                candidates.mean_N[choice.index_K].tolist(),
                ranker.probabilities(score_N, chosen_K, target),
                choice.odds_K.tolist(),
                choice.explored_K.tolist(),
                [texts[0].text if texts else None for texts in why],
                strict=True,
            )
        )
        for slot, number in offer.pins:
            item = given_away(ranker, number, target, score_N)
            rows.insert(slot, (number, item.score, item.probability, 1.0, False, item.reasons[0].text))
        for rank, (number, *row) in enumerate(rows, 1):
            values = (history.subject, rank, ids[number - 1], *row)
            for name, value in zip(ANSWER_SCHEMA.names, values, strict=False):
                columns[name].append(value)
        columns["recommendation_id"] += [answer_id(teaches=False)] * len(rows)
        columns["policy_id"] += [drawn.policy_id] * len(rows)
    count = len(columns["user_id"])
    fixed = {
        "model_id": ranker.model_id,
        "surface": request.surface,
        "ts": now,
        "seed": seed,
        "degraded": ranker.degraded,
    }
    for name, value in fixed.items():
        columns[name] = [value] * count
    return pa.table(columns, schema=ANSWER_SCHEMA)
