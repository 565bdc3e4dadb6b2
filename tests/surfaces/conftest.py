"""A toy engine with every kind of operation, so that surfaces are tested apart from what a shop does."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
from msgspec import Meta

from penchant.core import Noun, no_progress, now
from penchant.core.errors import ModelError, PenchantError, StorageError, UnknownColumns
from penchant.engine import OPERATIONS, Jobs
from penchant.engine._operation import POSITIONAL, InFile, Operation, OutFile, operation
from penchant.testing import running_server


class AddRequest(Noun):
    """Add numbers."""

    left: Annotated[int, Meta(ge=0, le=1000, description="one number", extra=POSITIONAL)]
    right: Annotated[int, Meta(description="the other")] = 1
    twice: Annotated[bool, Meta(description="double the sum")] = False
    words: Annotated[list[str], Meta(description="said after the sum")] = []
    colour: Annotated[Literal["red", "blue"], Meta(description="of the sum")] = "red"
    anything: Annotated[Any, Meta(description="not looked at")] = None


class AddReport(Noun):
    """A sum."""

    total: int
    words: list[str]
    thread: str


class FailRequest(Noun):
    """Fail in a chosen way."""

    how: Annotated[str, Meta(description="the way")] = "model"


class Proposal(Noun):
    """A mapping somebody proposes."""

    name: str = "log"

    def toml(self) -> str:
        return '[[mapping]]\nname = "log"\n'


class Thing(Noun):
    """A thing."""

    name: Annotated[str, Meta(description="its name", examples=["cup"])]
    size: Annotated[float, Meta(description="its size")] | None = None


class ThingsRequest(Noun):
    """Take things."""

    things: Annotated[list[Thing], Meta(description="the things")]


class ThingsReport(Noun):
    """Things taken."""

    names: list[str]
    things: list[Thing]


class CopyRequest(Noun):
    """Count the bytes of files, and copy them one after the other."""

    files: Annotated[list[InFile], Meta(description="files", min_length=1, extra=POSITIONAL)]
    note: Annotated[InFile, Meta(description="one more", extra={"file": "in", "words": ["none"]})] | None = (
        None
    )
    out: Annotated[OutFile, Meta(description="the copy")] | None = None
    fail: Annotated[bool, Meta(description="name the first file in an error")] = False


class CopyReport(Noun):
    """What was copied."""

    names: list[str]
    size: int
    out: str | None
    existed: bool


class LongRequest(Noun):
    """Take a while."""

    steps: Annotated[int, Meta(description="steps of a hundredth of a second")] = 5
    fail: Annotated[bool, Meta(description="fail at the end")] = False
    out: Annotated[OutFile, Meta(description="what was written")] | None = None


class LongReport(Noun):
    """Done."""

    steps: int
    out: str | None = None


class PersonRequest(Noun):
    """About a person."""

    user_id: Annotated[str, Meta(description="the person", extra=POSITIONAL)] | None = None
    out: Annotated[OutFile, Meta(description="what is known")] | None = None


class PersonReport(Noun):
    """What is known."""

    subject: str


def make_toy_engine() -> type[Any]:
    """Define the toy; defining it fills the operation table."""

    class ToyEngine:
        shop = None
        clock = staticmethod(now)

        def __init__(self, path: Path) -> None:
            self.path = path
            self.progress: Any = no_progress
            self.closed = False
            self.tally: Any = {}
            self.hold = threading.Event()  # jobs wait for it
            self.hold.set()

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def close(self) -> None:
            self.closed = True

        def _run(self, row: Operation, function: Any, request: Any) -> Any:
            return function(self, request)

        @operation(scope="serve")
        def add(self, request: AddRequest) -> AddReport:
            """Add two numbers.

            A longer text with ``code``.
            """
            total = request.left + request.right
            return AddReport(
                total=total * 2 if request.twice else total,
                words=request.words,
                thread=threading.current_thread().name,
            )

        @operation(scope="manage")
        def fail(self, request: FailRequest) -> AddReport | CopyReport:
            """Fail."""
            if request.how == "ctrl-c":
                raise KeyboardInterrupt
            if request.how == "columns":
                error = UnknownColumns("unknown columns", value=["a"], hint="map them")
                error.proposal = Proposal()  # type: ignore[attr-defined]
                raise error
            if request.how == "crash":
                raise RuntimeError("the secret of user-4711")
            if request.how == "storage":
                raise StorageError("the disk is full", value="/somewhere", hint="free some space")
            if request.how == "base":
                raise PenchantError("no good")
            if request.how == "copy":
                return CopyReport(names=[], size=0, out=None, existed=False)
            raise ModelError("no model", value={"a": 1}, path="$.how", hint="train one")

        @operation(scope="serve")
        def take_things(self, request: ThingsRequest) -> ThingsReport:
            """Take things."""
            return ThingsReport(names=[thing.name for thing in request.things], things=request.things)

        @operation(scope="serve")
        def copy(self, request: CopyRequest) -> CopyReport:
            """Copy files."""
            paths = [Path(file) for file in request.files]
            if request.fail:
                raise StorageError("cannot copy", value=str(paths[0]), hint=f"look at {paths[0]}")
            content = b"".join(path.read_bytes() for path in paths)
            if request.out:
                Path(request.out).write_bytes(content)
            return CopyReport(
                names=[str(path) for path in paths],
                size=len(content),
                out=request.out,
                existed=all(path.exists() for path in paths),
            )

        @operation(scope="manage", job=True)
        def load(self, request: CopyRequest) -> CopyReport:
            """Copy files as a job."""
            self.hold.wait(10)
            return ToyEngine.copy.function(self, request)

        @operation(scope="manage", job=True)
        def long(self, request: LongRequest) -> LongReport:
            """Take a while."""
            for step in range(request.steps):
                self.progress("stepping", step, request.steps, {"loss": 1.0 / (step + 1)})
                time.sleep(0.01)
            self.hold.wait(10)
            if request.fail:
                raise ModelError("it did not work", hint="try again")
            if request.out:
                Path(request.out).write_text("<p>long</p>")
            return LongReport(steps=request.steps, out=request.out)

        @operation(scope="manage", job=True, isolated=True)
        def apart(self, request: LongRequest) -> LongReport:
            """Take a while in a process of its own."""
            raise AssertionError("must not run here")

        @operation(scope="govern", job=True)
        def person(self, request: PersonRequest) -> PersonReport:
            """Tell about a person."""
            if request.out:
                Path(request.out).write_text(str(request.user_id))
            if request.user_id == "nobody":
                raise ModelError("nobody is unknown", value=request.user_id)
            return PersonReport(subject=str(request.user_id))

    return ToyEngine


@pytest.fixture
def toy_table() -> Iterator[type[Any]]:
    """The operation table holds the toy's operations alone."""
    kept = dict(OPERATIONS)
    OPERATIONS.clear()
    try:
        yield make_toy_engine()
    finally:
        OPERATIONS.clear()
        OPERATIONS.update(kept)


@pytest.fixture
def toy(toy_table: type[Any], tmp_path: Path) -> Iterator[Any]:
    """A toy engine on a folder."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "shop.toml").write_text('name = "toy"\n')
    engine = toy_table(folder)
    yield engine
    engine.hold.set()


@contextlib.contextmanager
def client_of(engine: Any, **options: Any) -> Iterator[httpx.Client]:
    """A client of a real server of an engine."""
    from penchant.surfaces import create_app

    with (
        running_server(create_app(engine, **options)) as url,
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        yield client


@pytest.fixture
def toy_client(toy: Any) -> Iterator[httpx.Client]:
    """A client of a server of the toy engine."""
    with client_of(toy) as client:
        yield client


@pytest.fixture
def serve_toy(toy: Any) -> Any:
    """Serve the toy engine with other options."""
    return lambda **options: client_of(toy, **options)


@pytest.fixture
def toy_jobs(toy: Any) -> Iterator[Jobs]:
    """Jobs of the toy engine."""
    jobs = Jobs(toy)
    yield jobs
    toy.hold.set()
    jobs.close()
