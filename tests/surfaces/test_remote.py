"""The remote client against a real server of the toy engine."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from penchant.core.errors import (
    ArtifactError,
    ErasureIncomplete,
    InputError,
    Interrupted,
    MissingExtra,
    ModelError,
    PenchantError,
    ShopError,
    StorageError,
    UnreadableFile,
)
from penchant.engine import OPERATIONS, Engine, HttpRemote, error_classes, error_of, problem_of
from penchant.surfaces import create_app
from penchant.testing import running_server


@pytest.fixture
def told() -> list[tuple[Any, ...]]:
    return []


@pytest.fixture
def remote(toy_client: httpx.Client, told: list[tuple[Any, ...]]) -> Iterator[HttpRemote]:
    client = HttpRemote(str(toy_client.base_url), timeout=20, progress=lambda *news: told.append(news))
    yield client
    client.close()


def call(remote: HttpRemote, name: str, **fields: Any) -> Any:
    operation = OPERATIONS[name]
    return remote.call(operation, operation.build(**fields))


def test_answers_have_their_type(remote: HttpRemote) -> None:
    report = call(remote, "add", left=1, right=2, words=["a"])
    assert type(report).__name__ == "AddReport"
    assert (report.total, report.words) == (3, ["a"])
    assert type(call(remote, "fail", how="copy")).__name__ == "CopyReport"  # the second of a union


def test_files_go_and_come(remote: HttpRemote, tmp_path: Path) -> None:
    first, second, out = tmp_path / "a b.csv", tmp_path / "ü.csv", tmp_path / "out.csv"
    first.write_bytes(b"12")
    second.write_bytes(b"345")
    report = call(remote, "copy", files=[str(first), str(second)], note="none", out=str(out))
    assert out.read_bytes() == b"12345"
    assert report.out == str(out)
    assert report.names == [str(first), str(second)]  # as the caller knows them, not as the server does
    assert not list(tmp_path.glob("*.part"))


def test_jobs_are_followed(remote: HttpRemote, told: list[tuple[Any, ...]], tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    report = call(remote, "long", steps=60, out=str(out))
    assert (report.steps, report.out) == (60, str(out))
    assert out.read_text() == "<p>long</p>"
    assert {(task, total) for task, _, total, _ in told} == {("stepping", 60)}
    assert [done for _, done, _, _ in told] == sorted({done for _, done, _, _ in told})
    with pytest.raises(ModelError, match="did not work"):
        call(remote, "long", steps=1, fail=True)


def test_files_of_jobs(remote: HttpRemote, tmp_path: Path) -> None:
    first, out = tmp_path / "a.csv", tmp_path / "out.csv"
    first.write_bytes(b"12")
    assert call(remote, "load", files=[str(first)], out=str(out)).size == 2
    assert out.read_bytes() == b"12"


def test_errors_are_the_same_as_here(remote: HttpRemote, toy: Any, tmp_path: Path) -> None:
    for how in ("model", "storage", "base"):
        with pytest.raises(PenchantError) as here:
            toy.fail(how=how)
        with pytest.raises(PenchantError) as there:
            call(remote, "fail", how=how)
        assert type(there.value) is type(here.value)
        assert str(there.value) == str(here.value)
        assert there.value.hint == here.value.hint
    file = tmp_path / "a.csv"
    file.write_bytes(b"1")
    with pytest.raises(StorageError) as error:
        call(remote, "copy", files=[str(file)], fail=True)
    assert error.value.value == str(file)
    with pytest.raises(PenchantError) as crash:
        call(remote, "fail", how="crash")
    assert "4711" not in str(crash.value)


def test_a_file_that_cannot_be_read(remote: HttpRemote, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile) as error:
        call(remote, "copy", files=[str(tmp_path / "nothing.csv")])
    assert error.value.value == str(tmp_path / "nothing.csv")


def test_nobody_answers(toy_table: type[Any]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ShopError, match="penchant serve"):
        call(HttpRemote(url), "add", left=1)
    for wrong in ("127.0.0.1:8000", "ftp://x", "", "http://"):
        with pytest.raises(InputError, match="URL"):
            HttpRemote(wrong)


def test_it_takes_too_long(toy_table: type[Any]) -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    remote = HttpRemote("http://shop", timeout=1, transport=httpx.MockTransport(slow))
    with pytest.raises(ShopError, match="within 1 second"):
        call(remote, "add", left=1)


@pytest.mark.parametrize("status", [200, 502])
def test_something_else_answers(toy_table: type[Any], status: int) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, text="<h1>hello</h1>"))
    with pytest.raises(ShopError, match="penchant server"):
        call(HttpRemote("http://shop", transport=transport), "add", left=1)
    other = httpx.MockTransport(lambda request: httpx.Response(200, json={"sum": 3}))
    with pytest.raises(ShopError, match="version"):
        call(HttpRemote("http://shop", transport=other), "add", left=1)


def test_ctrl_c_while_waiting(remote: HttpRemote, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.hold.clear()

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", interrupt)
        with pytest.raises(Interrupted, match="may go on"):
            call(remote, "long", steps=1)
    toy.hold.set()


@pytest.mark.parametrize("code", sorted(error_classes()))
def test_every_error_survives_the_way(code: str) -> None:
    kind = error_classes()[code]
    error: PenchantError
    if kind is MissingExtra:
        error = MissingExtra("train", "training")
    else:
        error = kind("wrong", value={"a": [1, None]}, hint="mend it", path="$.k")
    problem = msgspec.json.decode(msgspec.json.encode(problem_of(error)), type=type(problem_of(error)))
    back = error_of(problem)
    assert type(back) is kind
    assert str(back) == str(error)
    assert (back.value, back.hint, back.path) == (error.value, error.hint, error.path)
    assert problem.status == kind.status


def test_values_that_are_not_json_and_long_ones_travel_shortened() -> None:
    assert problem_of(InputError("x", value=Path("/a"))).value == "/a"
    assert len(problem_of(InputError("x", value="y" * 10_000)).value) == 500
    assert len(problem_of(InputError("x", value=["y"] * 10_000)).value) == 500
    assert problem_of(ArtifactError("x", value=float("nan"))).value is None
    assert (
        error_of(msgspec.structs.replace(problem_of(InputError("x")), code="of a later version")).exit_code
        == 1
    )


def test_an_erasure_that_left_something_is_an_error_here_too(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "shop") as made:
        made.init()
    (tmp_path / "shop" / "note.txt").write_text("written by customer-4711")
    with (
        running_server(create_app(Engine.open(tmp_path / "shop"))) as url,
        Engine.connect(url, timeout=60) as engine,
    ):
        with pytest.raises(ErasureIncomplete) as caught:
            engine.erase_user(user_id="customer-4711")
        assert (caught.value.value, caught.value.exit_code) == ("note.txt", 8)
        (tmp_path / "shop" / "note.txt").unlink()
        assert engine.erase_user(user_id="customer-4711").remaining == []


@pytest.mark.parametrize("operation", ["erase_user", "export_user", "profile"])
def test_a_request_about_nobody_is_refused_before_a_job_begins(tmp_path: Path, operation: str) -> None:
    with Engine.open(tmp_path / "shop") as made:
        made.init()
        with pytest.raises(InputError) as here:
            getattr(made, operation)()
        with pytest.raises(InputError):
            getattr(made, operation)(OPERATIONS[operation].request())
    with (
        running_server(create_app(Engine.open(tmp_path / "shop"))) as url,
        Engine.connect(url, timeout=60) as engine,
    ):
        with pytest.raises(InputError) as there:
            getattr(engine, operation)()
        answer = httpx.post(f"{url}/v1/{operation}", json={})
        assert (answer.status_code, answer.json()["path"]) == (422, "$.user_id")
    assert str(here.value) == str(there.value)
