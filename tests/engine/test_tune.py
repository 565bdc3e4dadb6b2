"""Tuning a shop: never worse where it chose, told on others, and written down when that is asked for."""

import time
import tomllib

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant import Engine
from penchant.core.errors import InputError, ModelError
from penchant.engine._model_settings import model_config
from penchant.engine._shop import read_config
from penchant.models import Transitions, TransitionsConfig
from penchant.surfaces._render import render
from penchant.training import _search

pytest.importorskip("optuna")
pytest.importorskip("torch")


class Counted:
    """Counted transitions in the place of a network: the higher the dropout, the slower a history fades."""

    def __init__(self, snapshot, config, run):
        self.config = msgspec.structs.replace(config, epochs=1.0, **dict.fromkeys(_search._DECAYS, 0.5))
        self.scores = Transitions.fit(snapshot, TransitionsConfig(decay=1 - config.dropout), run).scores


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(_search, "fit_model", lambda _, *rest: Counted(*rest))


@pytest.fixture
def engine(tmp_path, walk):
    """A shop in which people go around a ring of items."""
    pq.write_table(pa.Table.from_pylist(walk(range(12), 1)), tmp_path / "events.parquet")
    with Engine.open(tmp_path / "shop") as engine:
        engine.init(name="Ring")
        engine.ingest(files=[str(tmp_path / "events.parquet")])
        config = engine.shop.config
        config.train.settings["sequence"] = {"size": "tiny", "epochs": 2}
        yield engine


def test_settings_are_found_and_written(engine, counted):
    found = engine.tune(minutes=5, trials=8, seed=2)
    assert [t.present for t in found.trials] == [True] + [False] * 7
    assert found.best["validation"].value >= found.present["validation"].value
    assert not found.applied
    assert "sequence" not in read_config(engine.path).train.settings
    again = engine.tune(minutes=5, trials=8, seed=2, apply=True)
    assert again.trials == found.trials  # nothing is tried twice
    text = render(again)
    assert again.verdict in text.replace("\n", " ") or again.verdict[:40] in text
    assert again.applied
    assert again.difference["held_out"].n == again.best["held_out"].n
    written = read_config(engine.path).train.settings["sequence"]
    assert written == {"size": "tiny", "epochs": 2, **again.settings}
    assert tomllib.loads(again.toml)["train"]["settings"]["sequence"] == written
    config = model_config(engine.shop, "sequence")
    assert all(getattr(config, name) == value for name, value in again.settings.items())


@pytest.mark.slow
def test_a_real_network_is_tuned(engine):
    found = engine.tune(minutes=5, trials=2)
    assert found.best["validation"].value >= found.present["validation"].value
    assert all(t.epochs for t in found.trials)


def test_a_short_time_says_how_to_go_on(engine):
    began = time.monotonic()
    with pytest.raises(ModelError, match="not enough") as error:
        engine.tune(minutes=0.001)
    assert time.monotonic() - began < 10
    assert "same command again" in error.value.hint


def test_what_cannot_be_is_refused(engine):
    with pytest.raises(InputError, match="size"):
        engine.tune(size="enormous", minutes=1)
    with pytest.raises(InputError):
        engine.tune(minutes=0)
