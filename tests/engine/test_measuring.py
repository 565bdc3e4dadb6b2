"""Training and measuring of a small shop: whose settings count, what is refused at once, what is reported."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant import Engine, models
from penchant.core import DAY, Run, Vocabulary, no_progress
from penchant.core.errors import ArtifactError, InputError, ModelError
from penchant.engine import _evaluate, _model_settings, _protocol, _tags, _train, built_in_settings
from penchant.engine._model_settings import pick_device
from penchant.engine._profile import item_tags, personal_events, shop_shares
from penchant.engine._promotion import Pointer, read_pointer, write_pointer
from penchant.engine._protocol import run_folder
from penchant.engine._tidy import tidy
from penchant.models import PopularityConfig, TagsConfig
from penchant.surfaces._render import render
from penchant.testing import toy_snapshot
from penchant.training import fit_model, read_artifact, save_artifact

NOW = 1_750_000_000_000_000
USERS, ITEMS, STEPS = 60, 24, 10


def clock():
    return NOW


def write(folder, name, rows):
    pq.write_table(pa.Table.from_pylist(rows), folder / name)
    return [str(folder / name)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop whose people come back to their own half of the items; the last item is in no catalogue."""
    folder = tmp_path_factory.mktemp("shop")
    draw = np.random.default_rng(0)
    events = [
        {
            "event_id": f"{user}-{step}",
            "user_id": f"u{user}",
            "kind": "purchase",
            "item_id": f"i{2 * int(draw.integers(ITEMS // 2)) + user % 2}" if step else "unlisted",
            "ts": NOW - (3 * STEPS - 3 * step) * DAY - user,
        }
        for user in range(USERS)
        for step in range(STEPS)
    ]
    catalog = [
        {"id": f"i{n}", "title": f"Item {n}", "category": "Odd" if n % 2 else "Even"} for n in range(ITEMS)
    ]
    with Engine.open(folder / "shop", clock=clock) as engine:
        engine.init()
        engine.catalog(files=write(folder, "items.parquet", catalog))
        engine.ingest(files=write(folder, "events.parquet", events))
    return folder / "shop"


@pytest.fixture
def engine(shop, tmp_path):
    shutil.copytree(shop, tmp_path / "shop")
    with Engine.open(tmp_path / "shop", clock=clock) as engine:
        yield engine


def test_measuring_takes_the_rule_the_promoted_model_was_trained_with(engine):
    usual = engine.evaluate().seen
    other = "exclude" if usual == "allow" else "allow"
    engine.train(models=["transitions"], seen=other)
    assert engine.evaluate().seen == other
    assert engine.compare(models=["transitions"]).seen == other
    assert engine.evaluate(seen=usual).seen == usual


def test_measuring_takes_the_size_the_promoted_model_was_trained_with(engine, monkeypatch):
    pytest.importorskip("torch")
    of_kind = lambda outcome: next(f for f in outcome.fitted if f.kind == "sequence")  # noqa: E731
    monkeypatch.setattr(_protocol.Outcome, "best", property(of_kind))
    assert engine.train(models=["sequence"], size="tiny", device="cpu").promoted_kind == "sequence"
    sizes = []

    def stop(*args, size, **rest):
        sizes.append(size)
        raise ModelError("enough was seen")

    monkeypatch.setattr(_evaluate, "run_protocol", stop)
    with pytest.raises(ModelError, match="enough"):
        engine.evaluate()
    assert sizes == ["tiny"]


def test_a_checkpoint_chosen_by_one_rule_does_not_serve_another(engine):
    snapshot, config = _protocol.take_snapshot(engine.shop, no_progress), PopularityConfig()
    folders = {
        run_folder(engine.shop, snapshot, "popularity", config, 0, validated=rule)
        for rule in ("", "allow", "exclude")
    }
    assert len(folders) == 3


@pytest.mark.parametrize(
    "wrong", [{"size": "gigantic"}, {"device": "tpu"}, {"device": "cuda:"}, {"device": "cuda:x"}]
)
def test_what_cannot_be_is_refused_before_anything_is_fitted(engine, wrong, monkeypatch):
    monkeypatch.setattr(_protocol, "_fit", lambda *args, **rest: pytest.fail("it was fitted"))
    with pytest.raises(InputError, match="no such"):
        engine.train(models=["transitions"], **wrong)


def test_a_device_this_machine_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(_model_settings, "_CUDA_DRIVERS", ())
    assert pick_device("auto") == pick_device("cpu") == "cpu"
    with pytest.raises(InputError, match="has no such device"):
        pick_device("cuda")


@pytest.mark.parametrize("kind", ["impression", "refund", "search"])
def test_events_that_turn_to_nothing_are_named_as_the_reason(tmp_path, kind):
    rows = [
        {
            "event_id": f"{user}-{step}",
            "user_id": f"u{user}",
            "kind": kind,
            "item_id": None if kind == "search" else f"i{step}",
            "ts": NOW - (9 - step) * DAY,
        }
        for user in range(9)
        for step in range(5)
    ]
    with Engine.open(tmp_path / "shop", clock=clock) as engine:
        engine.init()
        engine.ingest(files=write(tmp_path, "events.parquet", rows))
        with pytest.raises(ModelError, match="no event turns to an item"):
            engine.train(models=["transitions"])


@pytest.mark.parametrize("people", [0, 1, 2])
def test_the_doctor_says_what_training_would_say(tmp_path, people):
    rows = [
        {"event_id": f"{n}", "user_id": f"u{n % max(people, 1)}", "kind": "view" if people else "search"}
        | {"item_id": f"i{n}" if people else None, "ts": NOW - (30 - n // 2) * DAY}
        for n in range(40)
    ]
    with Engine.open(tmp_path / "shop", clock=clock) as engine:
        engine.init()
        engine.ingest(files=write(tmp_path, "events.parquet", rows))
        found = {finding.code: finding for finding in engine.doctor().findings}
        if people == 2:
            assert "too_little" not in found
            assert engine.train(models=["transitions"]).promoted
            return
        assert found["too_little"].severity == "warning"
        assert "sound" not in found
        with pytest.raises(ModelError) as told:
            engine.train(models=["transitions"])
        assert found["too_little"].examples == [told.value.message]


def test_the_report_counts_the_people_it_measured(engine):
    report = engine.evaluate(seen="exclude", share=0.4)
    row = report.rows[0]
    assert report.users == row.metrics["HR@10"].n
    assert f" {report.users} others are measured here" in report.protocol
    assert "random order" in report.protocol


def test_the_protocol_marks_thousands(engine, monkeypatch):
    def stop(outcome):
        train = replace(outcome.train, items=Vocabulary([f"i{n}" for n in range(12_345)]))
        told.append(words(replace(outcome, train=train)))
        raise ModelError("enough was seen")

    told, words = [], _protocol.protocol_words
    monkeypatch.setattr(_protocol, "protocol_words", stop)
    with pytest.raises(ModelError, match="enough"):
        engine.evaluate()
    assert "Full ranking over 12,345 items" in told[0]


def test_tags_are_reported_by_what_the_model_says(engine, monkeypatch):
    """A model that is sure and says the opposite of what it thinks is wrong about everything."""
    pytest.importorskip("torch")
    fit = models.train_tags

    def contrary(*args, **rest):
        trained = fit(*args, **rest)
        said = trained.baseline_decisions
        never = {"same as last period": np.zeros_like(said["same as last period"])}
        opposite = trained.label_PC < 0.5
        return replace(trained, decision_PC=opposite, baseline_decisions=said | never)

    monkeypatch.setattr(models, "train_tags", contrary)
    snapshot = _protocol.take_snapshot(engine.shop, no_progress)
    found = _tags.train_tags(engine.shop, snapshot, 0, no_progress)
    assert found.report.metrics["accuracy"].value == 0
    assert found.measured["same as last period"].metrics["recall micro"].value == 0
    assert found.measured["base rate"].metrics["recall micro"].value > 0


@pytest.mark.parametrize("lacking", ["chances", "hits"])
def test_tags_that_know_no_more_than_the_base_rate_are_not_used_and_say_why(engine, monkeypatch, lacking):
    pytest.importorskip("torch")
    fit = models.train_tags

    def useless(*args, **rest):
        trained = fit(*args, **rest)
        if lacking == "chances":
            return replace(trained, probability_PC=trained.baselines["base rate"])
        return replace(
            trained,
            probability_PC=0.9 * trained.label_PC + 0.05,
            decision_PC=np.zeros_like(trained.decision_PC),
        )

    known = engine.train(models=["transitions"])
    assert known.tags.note is None
    pointer = read_pointer(engine.shop.artifacts)
    assert pointer.tags == known.artifacts["tags"]
    monkeypatch.setattr(models, "train_tags", useless)
    report = engine.train(models=["transitions"])
    assert "tags" not in report.artifacts
    assert read_pointer(engine.shop.artifacts).tags == pointer.tags, "what was useful before stays"
    for words in ("nothing useful", "held-out people", "were 2 tags to tell (Even, Odd)", "examples"):
        assert words in report.tags.note
    said, page = render(report), (engine.path / "reports" / "leaderboard.html").read_text()
    assert "nothing useful" in " ".join(said.split())
    assert "F1 macro" not in said
    assert "nothing useful" in page
    assert "By tag" not in page


def test_live_tag_features_equal_those_of_training(engine):
    """Items the catalogue lacks count alike as of now and in training."""
    pytest.importorskip("torch")
    snapshot = _protocol.take_snapshot(engine.shop, no_progress)
    model = _tags.train_tags(engine.shop, snapshot, 0, no_progress).trained.model
    last = engine.shop.store.status().last_ts + 1
    whole = model.describe(snapshot, snapshot.items, snapshot.catalog, last)
    for subject in ("u0", "u7"):
        events = personal_events(engine.shop, subject)
        row = _tags._features(engine.shop, model, subject, events, pa.table({}))
        place = snapshot.users.number(subject) - 1
        assert row.column_names == whole.column_names
        for name in row.column_names:
            np.testing.assert_array_equal(row[name][0].as_py(), whole[name][place].as_py(), err_msg=name)


def test_the_usual_share_divides_an_item_over_its_tags(tmp_path):
    rows = [
        {"event_id": f"{n}", "user_id": f"u{n}", "kind": "view", "item_id": item, "ts": NOW - DAY - n}
        for n, item in enumerate(("two", "one"))
    ]
    with Engine.open(tmp_path / "shop", clock=clock) as engine:
        engine.init()
        engine.catalog(
            files=write(
                tmp_path,
                "items.parquet",
                [{"id": "two", "labels": ["x", "y"]}, {"id": "one", "labels": ["z"]}],
            )
        )
        engine.ingest(files=write(tmp_path, "events.parquet", rows))
        assert shop_shares(engine.shop, item_tags(engine.shop)) == {"x": 0.25, "y": 0.25, "z": 0.5}


def test_rollback_knows_only_models_that_are_still_there(engine):
    toy = toy_snapshot([("u", "a"), ("v", "b")])
    model = fit_model("popularity", toy, {}, Run())
    ids = [
        save_artifact(
            engine.shop.artifacts, model, kind="popularity", as_of=0, items=toy.items, facts={"seed": seed}
        ).id
        for seed in range(3)
    ]
    for age, artifact_id in enumerate(reversed(ids)):
        os.utime(engine.shop.artifacts / artifact_id / "manifest.json", (2e9 - age, 2e9 - age))
    write_pointer(engine.shop.artifacts, Pointer(promoted=ids[2], previous=(ids[1], ids[0])))
    tidy(engine.shop, 1)
    assert [(engine.shop.artifacts / i).is_dir() for i in ids] == [False, True, True]
    assert read_pointer(engine.shop.artifacts).previous == (ids[1],)


def test_a_damaged_promoted_model_does_not_keep_others_from_being_measured(engine):
    write_pointer(engine.shop.artifacts, Pointer(promoted="0" * 32))
    assert engine.evaluate(models=["transitions"]).rows
    assert engine.compare(models=["transitions"]).rows
    with pytest.raises(ArtifactError, match="damaged"):
        engine.evaluate()


def with_settings(tmp_path, shop, text):
    shutil.copytree(shop, tmp_path / "set")
    with (tmp_path / "set" / "shop.toml").open("a") as file:
        file.write(text)
    return Engine.open(tmp_path / "set", clock=clock)


def test_the_shop_sets_its_models(shop, tmp_path):
    text = "\n[train.settings.transitions]\nwindow = 2\ndecay = 0.5\n\n[train.settings.ials]\nembedding_size = 4\n"
    with with_settings(tmp_path, shop, text) as engine:
        report = engine.train(models=["transitions"])
        loaded = read_artifact(tmp_path / "set" / "artifacts", report.artifacts["transitions"])
    assert loaded.config["window"] == 2
    assert loaded.config["decay"] == 0.5


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("[train.settings.sequence]\nwidht = 32\n", "train.settings.sequence.widht", "fields: size, .*width"),
        ("[train.settings.tags]\noptimiser = 'rmsprop'\n", "train.settings.tags.optimiser", "rmsprop"),
        (
            "[train.settings.tags]\nhidden = [64, 'x']\n",
            "train.settings.tags.hidden[1]",
            "Expected `int`, got `str`",
        ),
        ("[train.settings.ials]\nreg = 0\n", "train.settings.ials.reg", ">= 0.0001"),
        ("[train.settings.ials]\nconfidence = 0.5\n", "train.settings.ials.confidence", ">= 1"),
        ("[train.settings.transformer]\nx = 1\n", "train.settings.transformer", "transformer.*kinds: ease"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_read(shop, tmp_path, text, path, says, monkeypatch):
    for module in (_train, _evaluate):
        monkeypatch.setattr(module, "take_snapshot", lambda *_: pytest.fail("it was read"))
    with with_settings(tmp_path, shop, "\n" + text) as engine:
        for operation in (engine.train, engine.evaluate, engine.compare):
            with pytest.raises(InputError, match=says) as refused:
                operation(models=["transitions"])
            assert refused.value.path == path
            assert "shop.toml" in str(refused.value)


def test_the_size_that_is_asked_for_wins(shop, tmp_path):
    text = "\n[train.settings.sequence]\nsize = 'large'\ndropout = 0.3\n"
    with with_settings(tmp_path, shop, text) as engine:
        found = [_model_settings.model_config(engine.shop, "sequence", size) for size in ("auto", "tiny")]
    assert [(config.size, config.dropout) for config in found] == [("large", 0.3), ("tiny", 0.3)]


def test_tags_take_their_settings_and_the_device(shop, tmp_path, monkeypatch):
    met = []

    def fit(snapshot, users, config, run):
        met.append((config, run.device))
        raise ModelError("enough")

    monkeypatch.setattr(models, "train_tags", fit)
    monkeypatch.setattr(_tags, "pick_device", lambda device: f"picked {device}")
    text = "\n[train.settings.tags]\nhidden = [64, 8]\noptimiser = 'sgd'\ndropout = 0\n"
    with with_settings(tmp_path, shop, text) as engine:
        assert "enough" in engine.train(models=["transitions"], device="cpu").notes[0]
    assert met == [(TagsConfig(hidden=(64, 8), optimiser="sgd", dropout=0.0), "picked cpu")]


def test_hints_name_settings_that_exist():
    kinds, told = built_in_settings(), set()
    for file in Path(models.__file__).parents[1].rglob("*.py"):
        text = re.sub(r'"\s*\n\s*f?"', "", file.read_text("utf-8"))
        for words, kind in re.findall(
            r"(?:lower|raise|set) ([\w ]+?) under \[train\.settings\.(\w+)\]", text
        ):
            assert words in kinds[kind].__struct_fields__, file
            told.add((kind, words))
    wanted = {
        ("tags", "min_users"),
        ("tags", "learning_rate"),
        ("ease", "reg"),
        ("sequence", "learning_rate"),
    }
    assert wanted <= told


def test_tags_look_at_money_of_one_currency(shop, tmp_path):
    """What a person spent in another currency is missing, in training and in an answer alike."""
    pytest.importorskip("torch")
    shutil.copytree(shop, tmp_path / "mixed")
    rows = [
        {
            "event_id": f"paid-{user}-{place}",
            "user_id": f"u{user}",
            "kind": "purchase",
            "item_id": f"i{user % 2}",
            "value": value,
            "currency": currency,
            "ts": NOW - DAY,
        }
        for user in range(USERS)
        for place, (value, currency) in enumerate([(100, "EUR"), (200, "EUR"), (7_000, "JPY")][user % 2 :])
    ]
    with Engine.open(tmp_path / "mixed", clock=clock) as engine:
        engine.ingest(files=write(tmp_path, "paid.parquet", rows))
        snapshot = _protocol.take_snapshot(engine.shop, no_progress)
        model = models.train_tags(snapshot, None, TagsConfig(epochs=1), Run()).model
        assert model.view.currency == "EUR"
        for user, spent in (("u0", 300), ("u1", 200)):
            row = snapshot.users.numbers([user]) - 1
            last = int(snapshot.ts.max()) + 1
            trained = model.describe(snapshot, snapshot.items, snapshot.catalog, last, rows_B=row)
            events = personal_events(engine.shop, user)
            asked = _tags._features(engine.shop, model, user, events, pa.table({}))
            for table in (trained, asked):
                assert table["spend"].to_pylist() == pytest.approx([np.log1p(spent)])


def test_the_base_rate_of_several_tags_is_shown_at_its_best(engine):
    pytest.importorskip("torch")
    report = engine.train(models=["transitions"])
    base, half = report.tags.base_rate, report.tags.base_rate_from_half
    assert base["recall micro"].value == 1
    assert base["F1 macro"].value >= half["F1 macro"].value
    assert half["accuracy"].value >= base["accuracy"].value
    assert "likelier than not: accuracy 0." in " ".join(render(report).split())
