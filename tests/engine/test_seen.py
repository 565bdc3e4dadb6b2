"""What counts as seen: the items a person turned to, in measuring, live and in batches alike."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant import Engine
from penchant.core import DAY

NOW = 1_750_000_000_000_000


@pytest.fixture
def shown(tmp_path):
    """A shop that logs impressions: every day each person is shown things, and buys one they never had."""
    rows = [
        {
            "user_id": f"u{user}",
            "kind": kind,
            "item_id": f"i{item}",
            "ts": NOW - (9 - day) * DAY + step - user,
        }
        for user in range(60)
        for day in range(9)
        for step, (kind, item) in enumerate(
            [*(("impression", (user + shift) % 40) for shift in range(12)), ("purchase", (user + day) % 40)]
        )
    ]
    named = [row | {"event_id": str(n)} for n, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(named), tmp_path / "events.parquet")
    with Engine.open(tmp_path / "shop", clock=lambda: NOW) as engine:
        engine.init()
        engine.ingest(files=[str(tmp_path / "events.parquet")])
        yield engine


def test_what_was_only_shown_was_not_seen(shown, tmp_path):
    """One rule in measuring, live and in batches: seen is what the person turned to."""
    report = shown.train(models=["ease"])
    assert report.leaderboard.seen == "exclude"
    shown.promote(artifact=report.artifacts["transitions"])
    own = {f"i{(7 + day) % 40}" for day in range(9)}
    live = [item.item_id for item in shown.recommend(explore="off", user_id="u7", k=40).items]
    assert set(live) == {f"i{n}" for n in range(40)} - own
    out = tmp_path / "recs.parquet"
    shown.recommend(explore="off", users="all", k=40, out=str(out))
    rows = pq.read_table(out).to_pylist()
    assert [row["item_id"] for row in rows if row["user_id"] == "u7"] == live
    shown.observe(events=[{"kind": "impression", "user_id": "u7", "item_id": live[0]}])
    assert [item.item_id for item in shown.recommend(explore="off", user_id="u7", k=40).items] == live
    shown.observe(events=[{"kind": "view", "user_id": "u7", "item_id": live[0]}])
    assert live[0] not in [item.item_id for item in shown.recommend(explore="off", user_id="u7", k=40).items]


def test_people_who_only_searched_or_were_shown_something_are_in_a_batch(shown, tmp_path):
    before = _answered(shown, tmp_path, "all").users
    shown.observe(
        events=[
            {"kind": "impression", "user_id": "only-shown", "item_id": "i1"},
            {"kind": "search", "user_id": "searcher", "query": "tea"},
        ]
    )
    assert _answered(shown, tmp_path, "all").users == before + 2
    (tmp_path / "people.txt").write_text("only-shown\nsearcher\nu7\nnobody\n")
    report = _answered(shown, tmp_path, str(tmp_path / "people.txt"))
    assert (report.users, report.unknown_users) == (4, 1)
    rows = pq.read_table(tmp_path / "recs.parquet").to_pylist()
    assert {row["user_id"] for row in rows} == {"only-shown", "searcher", "u7", "nobody"}
    many = [row["item_id"] for row in rows if row["user_id"] == "only-shown"]
    assert many == [item.item_id for item in shown.recommend(explore="off", user_id="only-shown", k=3).items]


def _answered(engine, folder, users):
    return engine.recommend(explore="off", users=users, k=3, out=str(folder / "recs.parquet"))
