"""What a measurement says and leaves behind: figures of groups, who preferred which model, no unfinished runs."""

import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant import Engine
from penchant.core import DAY
from penchant.engine import _protocol, _train
from penchant.surfaces._render import render

NOW = 1_750_000_000_000_000
AGES = ("19-24", "25-34", "35-44", "45-54", "55-64")


@pytest.fixture
def engine(tmp_path):
    """People who go around a ring of items, in five groups of age."""
    events = [
        {
            "event_id": f"{user}-{step}",
            "user_id": f"u{user}",
            "kind": "view",
            "item_id": f"i{(user + step) % 20}",
        }
        | {"ts": NOW - (12 - step) * DAY - user}
        for user in range(60)
        for step in range(10)
    ]
    people = [{"user_id": f"u{user}", "age": AGES[user % 5], "sex": "fm"[user % 2]} for user in range(60)]
    for name, rows in (("events", events), ("people", people)):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    with Engine.open(tmp_path / "shop", clock=lambda: NOW) as engine:
        engine.init()
        engine.ingest(files=[str(tmp_path / "events.parquet"), str(tmp_path / "people.parquet")])
        yield engine


@pytest.mark.parametrize("operation", ["evaluate", "compare"])
def test_the_terminal_shows_the_groups_that_were_asked_for(engine, operation, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    report = getattr(engine, operation)(models=["transitions"], by=["age"])
    text = render(report)
    assert max(map(len, text.splitlines())) <= 120
    assert "by sex" not in text
    assert "NDCG@10 by length" in text
    tables = text[text.index("NDCG@10 by age") : text.index("NDCG@10 by length")]
    for row in report.rows:
        assert sum(line.startswith(row.model) for line in tables.splitlines()) == 2, "four groups, then one"
        for age in AGES:
            found = row.by_group[f"age={age}"]["NDCG@10"]
            assert f"{age} ({found.n})" in tables
            assert f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]" in tables
    assert "by age" not in render(getattr(engine, operation)(models=["transitions"]))


def test_a_narrow_terminal_cuts_no_figure_and_no_name(engine, monkeypatch):
    report = engine.evaluate(models=["transitions"], by=["age"])
    monkeypatch.setenv("COLUMNS", "80")
    text = render(report)
    assert max(map(len, text.splitlines())) <= 80
    for row in report.rows:
        assert f"\n{row.model} " in text
        found = row.metrics["NDCG@10"]
        assert f"{found.value:.4f}" in text
        assert f"{found.high:.4f}]" in text


@pytest.mark.parametrize(("preferred", "words"), [("Popularity", True), ("Transitions", False)])
def test_the_verdict_says_when_those_who_choose_prefer_another_model(engine, monkeypatch, preferred, words):
    def measure(*_, **__):
        return lambda model: 0.75 if type(model).__name__ == preferred else 0.25

    monkeypatch.setattr(_protocol, "validation_metric", measure)
    report = engine.train(models=["transitions"])
    best, second = report.leaderboard.rows[:2]
    assert best.metrics["NDCG@10"].value == second.metrics["NDCG@10"].value, "either is the best of the table"
    assert report.promoted_kind == preferred.lower()
    said = f"preferred popularity: NDCG@10 0.7500 there, against 0.2500 of {best.model}"
    assert (said in report.leaderboard.verdict) == words
    assert ("preferred" in " ".join(render(report).split())) == words
    assert ("preferred" in (engine.path / "reports" / "leaderboard.html").read_text()) == words


def test_an_operation_leaves_no_runs_of_its_own_and_touches_no_others(engine, monkeypatch):
    fit, stop = _protocol.fit_model, []

    def fit_with_state(kind, snapshot, config, run):
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        (run.checkpoints / "state").write_text(kind)
        if kind in stop:
            raise KeyboardInterrupt
        return fit(kind, snapshot, config, run)

    for module in (_protocol, _train):
        monkeypatch.setattr(module, "fit_model", fit_with_state)
    for name in ("another-job", "given-up"):
        (engine.shop.runs / name).mkdir(parents=True)
    month_ago = time.time() - 30 * 86400
    os.utime(engine.shop.runs / "given-up", (month_ago, month_ago))
    left = lambda: sorted(folder.name for folder in engine.shop.runs.iterdir())  # noqa: E731
    for operation in (engine.evaluate, engine.compare):
        operation(models=["transitions"])
        assert left() == ["another-job", "given-up"]
    stop.append("transitions")
    with pytest.raises(KeyboardInterrupt):
        engine.train(models=["transitions"])
    assert len(left()) == 2 + len(_protocol.BASELINES), "a killed run goes on where it was"
    stop.clear()
    engine.train(models=["transitions"])
    assert left() == ["another-job"]
