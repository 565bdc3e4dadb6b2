"""One story told through every door of the engine: embedded, command line and server must agree."""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pyarrow.parquet as pq
import pytest

from penchant.core import rng
from penchant.core.errors import BrokenRows, PenchantError
from penchant.testing._server import running_server

DOORS = ("embedded", "command line", "server")
# What a policy expects follows from what items were like when its process began: each command is one of its own.
_VOLATILE = frozenset(
    {"candidates", "cursor", "recommendation_id", "seconds", "bytes", "bytes_searched", "jobs"}
)


class Door:
    """A way to call operations on the shop at ``shop``."""

    def __init__(self, shop: Path) -> None:
        self.shop = shop

    def call(self, name: str, fields: Mapping[str, Any]) -> Any:
        """Run an operation; gives JSON-ready values, or the error as a dictionary with one key, ``error``."""
        try:
            return msgspec.to_builtins(self._call(name, fields))
        except PenchantError as error:
            bare = PenchantError(error.message, value=error.value, path=error.path)
            return {"error": {"exit": error.exit_code, "text": str(bare), "hint": error.hint}}
        except Exception as error:  # a crash is an answer too: the story goes on, and the tests tell
            return {"error": {"exit": 1, "text": f"{type(error).__name__}: {error}", "hint": None}}

    def _call(self, name: str, fields: Mapping[str, Any]) -> Any:
        raise NotImplementedError


class EngineDoor(Door):
    """An engine object, embedded or remote."""

    def __init__(self, shop: Path, engine: Any) -> None:
        super().__init__(shop)
        self.engine = engine

    def _call(self, name: str, fields: Mapping[str, Any]) -> Any:
        return getattr(self.engine, name)(**fields)


class CommandDoor(Door):
    """The command line with ``--json``, in this process."""

    def call(self, name: str, fields: Mapping[str, Any]) -> Any:
        """Run a command; an error is read from standard error and the exit code."""
        from penchant.engine import OPERATIONS
        from penchant.surfaces import command_line
        from penchant.surfaces.cli import main

        words = command_line(OPERATIONS[name], fields, where=str(self.shop))
        out, told = io.StringIO(), io.StringIO()
        code = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
            try:
                main([*words[:1], "--json", "--no-progress", *words[1:]])
            except SystemExit as stop:
                code = int(stop.code or 0)
        if code in {0, BrokenRows.exit_code}:  # broken rows: an answer all the same
            return msgspec.json.decode(out.getvalue())
        lines = told.getvalue().splitlines()
        text = next(
            (line.removeprefix("error: ") for line in lines if line.startswith("error: ")), told.getvalue()
        )
        hint = next((line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")), None)
        return {"error": {"exit": code, "text": text, "hint": hint}}


@contextlib.contextmanager
def open_door(name: str, shop: Path) -> Iterator[Door]:
    """Open one of ``DOORS`` on the shop at a path."""
    from penchant.engine import Engine

    if name == "embedded":
        with Engine.open(shop) as engine:
            yield EngineDoor(shop, engine)
    elif name == "command line":
        yield CommandDoor(shop)
    else:
        from penchant.surfaces import create_app

        with running_server(create_app(Engine.open(shop))) as url, Engine.connect(url, timeout=120) as engine:
            yield EngineDoor(shop, engine)


@dataclass
class Story:
    """What was answered at each step through one door, made comparable."""

    answers: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, step: str) -> Any:
        return self.answers[step]


Step = tuple[str, str, Callable[["Scene"], dict[str, Any]]]


@dataclass
class Scene:
    """What steps may refer to: the files, the folder for output, earlier answers as they came."""

    files: Path
    out: Path
    raw: dict[str, Any]
    models: tuple[str, ...]

    def artifact(self, kind: str) -> str:
        """Id of a model trained earlier in the story."""
        return str(self.raw["train"].get("artifacts", {}).get(kind, "none"))


def write_files(folder: Path) -> None:
    """Write a small shop: 24 items in 3 categories; 40 people who mostly go from an item to the next one."""
    draw = rng(0, "a small shop")
    items = ["id,title,category,price"]
    items += [f"item-{n:02d},Item {n},Kind {n % 3} > Sort {n % 6},{n + 1}.50" for n in range(24)]
    (folder / "items.csv").write_text("\n".join(items) + "\n", "utf-8")
    events = ["event_id,ts,user_id,kind,item_id,value"]
    for person in range(40):
        item = int(draw.integers(24))
        for step in range(12):
            item = (item + int(draw.choice([1, 1, 1, 5]))) % 24
            kind = "purchase" if step % 3 == 2 else "view"
            when = (
                f"2024-{3 + step // 4:02d}-{1 + (person + 2 * step) % 28:02d}T{step + 6:02d}:{person:02d}:00Z"
            )
            events.append(f"e{person}-{step},{when},person-{person:02d},{kind},item-{item:02d},")
    events.append("bad,2024-03-01T00:00:00Z,,view,item-01,")  # nobody did it
    (folder / "events.csv").write_text("\n".join(events) + "\n", "utf-8")
    (folder / "unknown.csv").write_text("wer,was,wann\na,b,c\n", "utf-8")
    (folder / "empty.csv").write_bytes(b"")
    (folder / "users.txt").write_text("person-01\nperson-02\nsomebody-new\n", "utf-8")


_ME = {"user_id": "person-07"}
_NEWS = [
    {
        "kind": "view",
        "user_id": "person-07",
        "item_id": "item-10",
        "event_id": "n1",
        "ts": 1_718_000_000_000_000,
    },
    {
        "kind": "view",
        "user_id": "person-07",
        "item_id": "item-11",
        "event_id": "n2",
        "ts": 1_718_000_060_000_000,
    },
    {"kind": "view", "item_id": "item-10"},
    {"kind": "vieww", "user_id": "person-07", "item_id": "item-10", "event_id": "n4"},
    {"kind": "view", "user_id": "person-07", "item_id": 10},
    {"kind": "view", "user_id": "person-07", "item": "item-10"},
    "view",
]
_GUEST = [
    {
        "kind": "view",
        "anonymous_id": "cookie-1",
        "item_id": "item-04",
        "event_id": "g",
        "ts": 1_718_000_000_000_000,
    }
]
STEPS: tuple[Step, ...] = (
    ("no shop yet", "status", lambda s: {}),
    ("init", "init", lambda s: {"name": "Corner shop", "currency": "EUR"}),
    ("init again", "init", lambda s: {}),
    ("catalog", "catalog", lambda s: {"files": [str(s.files / "items.csv")]}),
    ("ingest", "ingest", lambda s: {"files": [str(s.files / "events.csv")]}),
    ("ingest again", "ingest", lambda s: {"files": [str(s.files / "events.csv")]}),
    ("unknown columns", "ingest", lambda s: {"files": [str(s.files / "unknown.csv")]}),
    ("empty file", "ingest", lambda s: {"files": [str(s.files / "empty.csv")]}),
    ("doctor", "doctor", lambda s: {"html": str(s.out / "health.html")}),
    ("popular", "recommend", lambda s: {"explore": "off", "seed": 3, **_ME, "k": 5}),
    ("train", "train", lambda s: {"models": list(s.models), "seed": 1, "device": "cpu"}),
    ("before", "recommend", lambda s: {"explore": "off", "seed": 3, **_ME, "k": 5}),
    ("observe", "observe", lambda s: {"events": _NEWS}),
    ("observe again", "observe", lambda s: {"events": _NEWS[:2]}),
    ("after", "recommend", lambda s: {"explore": "off", "seed": 3, **_ME, "k": 5}),
    ("observe guest", "observe", lambda s: {"events": _GUEST}),
    (
        "guest",
        "recommend",
        lambda s: {"explore": "off", "seed": 3, "anonymous_id": "cookie-1", "k": 3, "seen": "exclude"},
    ),
    ("forged cursor", "recommend", lambda s: {**_ME, "cursor": "AAAA"}),
    ("explained", "recommend", lambda s: {"explore": "off", "seed": 3, **_ME, "k": 3, "explain": True}),
    ("newcomer", "recommend", lambda s: {"explore": "off", "seed": 3, "user_id": "somebody-new", "k": 3}),
    (
        "filtered",
        "recommend",
        lambda s: {
            "explore": "off",
            "seed": 3,
            **_ME,
            "filters": ["price >= 1500"],
            "deny": ["item-20"],
            "k": 24,
        },
    ),
    (
        "allowed",
        "recommend",
        lambda s: {"explore": "off", "seed": 3, **_ME, "allow": ["item-01", "item-02"], "seen": "allow"},
    ),
    (
        "many",
        "recommend",
        lambda s: {
            "explore": "off",
            "seed": 3,
            "users": str(s.files / "users.txt"),
            "k": 4,
            "out": str(s.out / "many.parquet"),
        },
    ),
    (
        "everybody",
        "recommend",
        lambda s: {"explore": "off", "seed": 3, "users": "all", "k": 2, "out": str(s.out / "all.parquet")},
    ),
    ("similar", "similar", lambda s: {"item_id": "item-03", "k": 4}),
    (
        "stock",
        "stock",
        lambda s: {
            "items": [{"item_id": "item-05", "available_quantity": 0}, {"item_id": "nothing", "price": 1}]
        },
    ),
    ("search", "search", lambda s: {**_ME, "query": "itm 03", "k": 4}),
    ("profile", "profile", lambda s: {**_ME, "k": 3}),
    ("no planner", "plan", lambda s: {"dry_run": True}),
    ("evaluate", "evaluate", lambda s: {"seed": 2, "html": str(s.out / "report.html")}),
    ("compare", "compare", lambda s: {"models": list(s.models), "seed": 2}),
    ("sizes", "sizes", lambda s: {"targets": 1000}),
    ("recount", "recount", lambda s: {}),
    ("promote", "promote", lambda s: {"artifact": s.artifact("popularity")}),
    ("promoted", "recommend", lambda s: {"explore": "off", "seed": 3, **_ME, "k": 3}),
    ("rollback", "rollback", lambda s: {}),
    ("status", "status", lambda s: {}),
    ("k too small", "recommend", lambda s: {"explore": "off", "seed": 3, **_ME, "k": 0}),
    ("bad filter", "recommend", lambda s: {"explore": "off", "seed": 3, **_ME, "filters": ["nonsense"]}),
    ("empty query", "search", lambda s: {"query": " "}),
    ("unknown item", "similar", lambda s: {"item_id": "nothing"}),
    ("unknown model", "promote", lambda s: {"artifact": "ffffffffffff"}),
    ("whom", "profile", lambda s: {}),
    ("export", "export_user", lambda s: {**_ME, "out": str(s.out / "person.json")}),
    ("erase", "erase_user", lambda s: _ME),
    ("export erased", "export_user", lambda s: _ME),
    ("erased", "recommend", lambda s: {"explore": "off", "seed": 3, **_ME, "k": 3}),
)


def tell(door: Door, files: Path, out: Path, models: tuple[str, ...]) -> Story:
    """Run all steps through a door and note the answers."""
    story, scene = Story(), Scene(files, out, {}, models)
    out.mkdir()
    started = time.time_ns() // 1000
    for step, operation, make in STEPS:
        scene.raw[step] = answer = door.call(operation, make(scene))
        places = {str(door.shop): "SHOP", str(out): "OUT"}
        story.answers[step] = _comparable(answer, started, places)
    for path in sorted(out.glob("*.parquet")):
        table = pq.read_table(path).drop_columns(["recommendation_id", "ts"])
        story.answers[path.name] = table.to_pylist()
    story.answers["files"] = {path.name: path.stat().st_size > 0 for path in sorted(out.iterdir())}
    return story


_PERSON = re.compile(r"person [0-9a-f]{8}")  # the label of a person is another in every process


def _comparable(value: Any, started: int, places: Mapping[str, str]) -> Any:
    """Leave out what differs from run to run: durations, sizes, made-up ids and labels, the time of day, folders."""
    if isinstance(value, dict):
        return {
            key: _rounded(inner) if key == "values" else _comparable(inner, started, places)
            for key, inner in value.items()
            if key not in _VOLATILE
            and key != "interests"
            and not (key.endswith(("ts", "as_of")) and _since(inner, started))
        }
    if isinstance(value, list):
        return [_comparable(inner, started, places) for inner in value]
    if isinstance(value, str):
        for path, name in places.items():
            value = value.replace(path, name)
        return _PERSON.sub("person", value)
    return value


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """What a stage thinks of items: a process that starts later begins from events that another saw coming in."""
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in values.items()}


def _since(moment: Any, started: int) -> bool:
    return isinstance(moment, int) and moment >= started


class OperationTests:
    """All doors tell the same story, and the story makes sense. Subclass it in a test module.

    Example:
        ``class TestDoors(OperationTests): pass``
    """

    models: ClassVar[tuple[str, ...]] = ("popularity", "item_knn", "transitions")

    @pytest.fixture(scope="class")
    @classmethod
    def stories(cls, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Story]:
        """The story as told through each door, each on a shop of its own."""
        folder = tmp_path_factory.mktemp("doors")
        files = folder / "files"
        files.mkdir()
        write_files(files)
        told = {}
        for number, name in enumerate(DOORS):
            with open_door(name, folder / f"shop-{number}") as door:
                told[name] = tell(door, files, folder / f"out-{number}", cls.models)
        return told

    @pytest.mark.parametrize("door", DOORS[1:])
    @pytest.mark.parametrize("step", [step for step, _, _ in STEPS])
    def test_doors_agree(self, stories: dict[str, Story], door: str, step: str) -> None:
        """Every answer and every error is the same through each door."""
        assert stories[door][step] == stories[DOORS[0]][step]

    @pytest.mark.parametrize("door", DOORS[1:])
    def test_files_agree(self, stories: dict[str, Story], door: str) -> None:
        """Every file that was asked for is there, and tables have the same rows."""
        for name in ("many.parquet", "all.parquet", "files"):
            assert stories[door][name] == stories[DOORS[0]][name]

    @pytest.fixture(params=DOORS)
    def story(self, request: pytest.FixtureRequest, stories: dict[str, Story]) -> Story:
        """The story through one door."""
        return stories[request.param]

    def test_errors_are_told(self, story: Story) -> None:
        """What cannot work fails with its own exit code and a next step."""
        expected = {
            "no shop yet": 3,
            "init again": 3,
            "unknown columns": 2,
            "empty file": 2,
            "k too small": 2,
            "bad filter": 2,
            "unknown model": 2,
            "whom": 2,
            "empty query": 2,
            "forged cursor": 2,
            "no planner": 2,
        }
        for step, code in expected.items():
            assert story[step]["error"]["exit"] == code, step
            assert story[step]["error"]["hint"], step
        failed = {step for step, _, _ in STEPS if "error" in story[step]}
        unexpected = failed - expected.keys() - {"unknown item"}
        assert not unexpected, {step: story[step] for step in unexpected}

    def test_data_comes_in_once(self, story: Story) -> None:
        """The same file twice changes nothing; bad rows are counted."""
        first, again = story["ingest"], story["ingest again"]
        assert (first["rows"], first["accepted"], first["refused"]) == (481, 480, 1)
        assert (again["accepted"], again["files"][0]["already_stored"]) == (0, 480)
        assert story["catalog"]["accepted"] == 24

    def test_the_next_recommendation_knows(self, story: Story) -> None:
        """An event observed now changes the next answer without training, for people and guests."""
        assert [result["status"] for result in story["observe"]["results"]] == [
            *["stored"] * 2,
            *["refused"] * 5,
        ]
        assert story["observe"]["results"][3]["event_id"] == "n4"
        assert story["observe again"]["stored"] == 0
        assert _items(story["before"]) != _items(story["after"])
        assert story["before"]["model_id"] == story["after"]["model_id"]
        assert _items(story["guest"]) != _items(story["newcomer"])
        assert "item-04" not in _items(story["guest"])
        assert len(_items(story["newcomer"])) == 3

    def test_answers_keep_the_rules(self, story: Story) -> None:
        """Filters, allow and deny hold; before anything is trained the answer is popular and says so."""
        assert story["popular"]["degraded"]
        assert not story["before"]["degraded"]
        assert set(_items(story["filtered"])) <= {f"item-{n:02d}" for n in range(14, 24)} - {"item-20"}
        assert sorted(_items(story["allowed"])) == ["item-01", "item-02"]
        assert story["many"]["unknown_users"] == 1
        rows = story["many.parquet"]
        assert [row["rank"] for row in rows if row["user_id"] == "somebody-new"] == [1, 2, 3, 4]

    def test_counts_are_brought_up_to_date(self, story: Story) -> None:
        """A batch counts by itself what came in since; a recount of the same events changes no score."""
        assert story["many"]["model_id"] != story["before"]["model_id"]
        assert story["recount"]["previous"] == story["everybody"]["model_id"] == story["many"]["model_id"]
        assert story["recount"]["kind"] in ("popularity", "transitions", *story["train"]["artifacts"])
        assert story["promote"]["previous"] == story["recount"]["promoted"]

    def test_sizes_grow(self, story: Story) -> None:
        """Every size of the dial says what it costs; each costs more than the one before."""
        costs = [
            (row["parameters"], row["training_mb"], row["mflop_per_target"]) for row in story["sizes"]["rows"]
        ]
        assert costs == sorted(costs)
        assert story["sizes"]["items"] == 24
        assert costs[-1][0] > 1e9

    def test_promotion_and_return(self, story: Story) -> None:
        """Another model serves after promote, and the earlier one again after rollback."""
        assert story["promote"]["kind"] == "popularity"
        assert story["promoted"]["model_id"] == story["promote"]["promoted"]
        assert story["rollback"]["promoted"] == story["promote"]["previous"]
        assert story["status"]["serving"] == story["rollback"]["promoted"]

    def test_a_person_goes(self, story: Story) -> None:
        """Everything kept is given out; after an erasure nothing is left."""
        assert len(story["export"]["events"]) == 14
        assert story["erase"]["remaining"] == []
        assert story["export erased"]["events"] == []
        assert story["export erased"]["erased"]
        written = {"all.parquet", "health.html", "many.parquet", "person.json", "report.html"}
        assert {name for name, filled in story["files"].items() if filled} == written


def _items(slate: Mapping[str, Any]) -> list[str]:
    return [item["item_id"] for item in slate["items"]]
