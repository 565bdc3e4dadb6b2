"""The HTTP server on the toy engine: requests, files, jobs, errors, limits."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from penchant.engine import OPERATIONS, Jobs
from penchant.surfaces._body import Limits


def post(client: httpx.Client, name: str, **fields: Any) -> Any:
    return client.post(f"/v1/{name}", json=fields)


def upload(client: httpx.Client, name: str, request: dict[str, Any], *files: tuple[str, str, bytes]) -> Any:
    parts: list[tuple[str, Any]] = [("request", (None, json.dumps(request), "application/json"))]
    parts += [(field, (file, content, "application/octet-stream")) for field, file, content in files]
    return client.post(f"/v1/{name}", files=parts)


def finished(client: httpx.Client, answer: Any) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    where = answer.headers["location"]
    for _ in range(1000):
        status = client.get(where).json()
        if status["state"] not in {"queued", "running"}:
            return status  # type: ignore[no-any-return]
        time.sleep(0.005)
    raise AssertionError(status)


def test_an_operation_answers(toy_client: httpx.Client) -> None:
    answer = post(toy_client, "add", left=2, right=5, words=["a"])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert (body["total"], body["words"]) == (7, ["a"])
    assert body["thread"].startswith("quick")
    assert toy_client.post("/v1/status").status_code == 404  # only what is in the table exists


@pytest.mark.parametrize(
    ("body", "code", "path", "word"),
    [
        (b'{"left": -1}', "invalid_input", "$.left", ">= 0"),
        (b'{"left": "2"}', "invalid_input", "$.left", "int"),
        (b'{"right": 2}', "invalid_input", None, "left"),
        (b'{"left": 2, "more": 1}', "invalid_input", None, "more"),
        (b'{"left": NaN}', "invalid_input", None, "finite"),
        (b"", "invalid_input", None, "left"),
        (b"[]", "invalid_input", None, "object"),
        (b"{", "malformed", None, "JSON"),
        (b"\xff\xfe", "malformed", None, "JSON"),
        (b'{"left": 1, "left": 1}', "malformed", None, "twice"),
        (b"[" * 100_000, "malformed", None, "nested"),
        (b'{"left": ' + b"[" * 200_000, "malformed", None, "nested"),
        (b'{"left": 1, "anything": ' + b"[" * 200_000, "malformed", None, "nested"),
        (b'{"left": 1, "anything": ' + b'{"a":' * 200_000, "malformed", None, "nested"),
        (b'{"left": 1, "anything": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "malformed", None, "nested"),
    ],
)
def test_bad_requests_are_problems(
    toy_client: httpx.Client, body: bytes, code: str, path: str | None, word: str
) -> None:
    status = {"invalid_input": 422, "malformed": 400}[code]
    answer = toy_client.post("/v1/add", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code
    assert problem["type"] == f"/docs#error-{code}"
    assert problem["status"] == status
    assert problem.get("path") == path
    assert word in problem["detail"]
    assert problem["hint"]


@pytest.mark.parametrize(
    ("how", "status", "code"), [("model", 409, "model"), ("storage", 507, "storage"), ("base", 500, "error")]
)
def test_errors_have_the_status_of_the_tree(
    toy_client: httpx.Client, how: str, status: int, code: str
) -> None:
    answer = post(toy_client, "fail", how=how)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_crash_says_nothing_about_the_inside(
    toy_client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = post(toy_client, "fail", how="crash")
    assert answer.status_code == 500
    assert "4711" not in answer.text
    assert "Traceback" not in answer.text
    assert "RuntimeError" in caplog.text  # the operator can find the line
    assert "conftest.py" in caplog.text
    assert "4711" not in caplog.text  # but no data


def test_the_wrong_content_type_is_refused(toy_client: httpx.Client) -> None:
    answer = toy_client.post("/v1/add", content=b'{"left": 1}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["hint"]


def test_wrong_paths_and_methods_are_problems(toy_client: httpx.Client) -> None:
    assert toy_client.get("/nothing").json()["code"] == "not_found"
    assert toy_client.get("/nothing").status_code == 404
    answer = toy_client.get("/v1/add")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.headers["content-type"] == "application/problem+json"
    assert toy_client.get("/v1/jobs/nothing").status_code == 404
    assert toy_client.get("/v1/jobs/..%2f..%2fshop").status_code == 404


def test_bodies_have_a_limit(toy: Any, serve_toy: Any) -> None:
    with serve_toy(limits=Limits(body=1000, upload=3000)) as client:
        assert post(client, "add", left=1, words=["x" * 1000]).status_code == 413

        def pieces() -> Any:  # no length announced
            for _ in range(100):
                yield b" " * 100

        answer = client.post("/v1/add", content=pieces(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert upload(client, "copy", {}, ("files", "a", b"x" * 2000)).status_code == 200
        assert upload(client, "copy", {}, ("files", "a", b"x" * 5000)).status_code == 413
        assert upload(client, "copy", {"note": "n" * 1500}, ("files", "a", b"x")).status_code == 413
    assert left_behind(toy) == []


def left_behind(toy: Any) -> list[Path]:
    """Temporary folders of uploads that are still there."""
    return list(Path(tempfile.gettempdir()).glob(Jobs.spool_prefix(toy.path) + "*"))


def test_files_travel_as_parts(toy: Any, toy_client: httpx.Client) -> None:
    answer = upload(
        toy_client, "copy", {"note": "none"}, ("files", "../a.csv", b"12"), ("files", "b.csv", b"345")
    )
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"names": ["a.csv", "b.csv"], "size": 5, "out": None, "existed": True}
    assert left_behind(toy) == []


def test_files_come_back_as_the_body(toy: Any, toy_client: httpx.Client) -> None:
    answer = upload(toy_client, "copy", {"out": "/etc/passwd"}, ("files", "a.csv", b"a\n" * 100_000))
    assert answer.status_code == 200
    assert answer.content == b"a\n" * 100_000
    report = json.loads(answer.headers["penchant-response"])
    assert report == {"names": ["a.csv"], "size": 200_000, "out": "passwd", "existed": True}
    assert left_behind(toy) == []


def test_errors_name_the_files_as_the_caller_did(toy: Any, toy_client: httpx.Client) -> None:
    problem = upload(toy_client, "copy", {"fail": True}, ("files", "a.csv", b"12")).json()
    assert (problem["value"], problem["hint"]) == ("a.csv", "look at a.csv")
    assert tempfile.gettempdir() not in json.dumps(problem)
    assert left_behind(toy) == []


@pytest.mark.parametrize("how", ["json", "parts"])
def test_no_request_names_a_file_of_the_server(toy: Any, toy_client: httpx.Client, how: str) -> None:
    for fields in ({"files": ["/etc/passwd"]}, {"files": ["none"], "note": "/etc/passwd"}):
        if how == "json":
            answer = post(toy_client, "copy", **fields)
        else:
            answer = upload(toy_client, "copy", fields, ("other", "a", b"1"))
        assert answer.status_code == 422
        assert "root:" not in answer.text
        assert answer.json()["hint"]
    answer = upload(toy_client, "copy", {"note": "/etc/passwd"}, ("files", "a", b"1"))
    assert (answer.status_code, answer.json()["path"]) == (422, "$.note")
    assert post(toy_client, "load", files=["/etc/passwd"]).status_code == 422
    assert left_behind(toy) == []


def test_bad_multipart_is_refused(toy: Any, toy_client: httpx.Client) -> None:
    for content_type in ("multipart/form-data", "multipart/form-data; boundary=abc"):
        answer = toy_client.post("/v1/copy", content=b"nonsense", headers={"Content-Type": content_type})
        assert answer.status_code == 400, answer.text
    two = upload(toy_client, "copy", {}, ("files", "a", b"1"), ("note", "n", b"1"), ("note", "m", b"1"))
    assert two.json()["path"] == "$.note"
    many = upload(toy_client, "copy", {}, *[("files", str(n), b"1") for n in range(1001)])
    assert "too many parts" in many.json()["title"]
    text = toy_client.post("/v1/copy", files=[("request", (None, "[1]")), ("files", ("a", b"1"))])
    assert text.status_code == 400
    assert upload(toy_client, "add", {}, ("files", "a", b"1")).status_code == 415
    assert left_behind(toy) == []


def test_a_job_is_accepted_and_found(toy_client: httpx.Client) -> None:
    status = finished(toy_client, post(toy_client, "long", steps=3))
    assert status["state"] == "done"
    assert status["result"] == {"steps": 3, "out": None}
    assert (status["task"], status["total"]) == ("stepping", 3)
    assert status["created"] <= status["started"] <= status["finished"]
    assert [job["id"] for job in toy_client.get("/v1/jobs").json()] == [status["id"]]
    failed = finished(toy_client, post(toy_client, "long", steps=1, fail=True))
    assert (failed["state"], failed["error"]["code"]) == ("failed", "model")


def test_files_of_jobs(toy: Any, toy_client: httpx.Client) -> None:
    answer = upload(
        toy_client, "load", {"out": "copy.csv"}, ("files", "a.csv", b"12"), ("files", "b.csv", b"3")
    )
    status = finished(toy_client, answer)
    assert status["result"] == {"names": ["a.csv", "b.csv"], "size": 3, "out": "copy.csv", "existed": True}
    assert status["files"] == ["out"]
    assert toy_client.get(f"/v1/jobs/{status['id']}/files/out").content == b"123"
    assert toy_client.get(f"/v1/jobs/{status['id']}/files/other").status_code == 404
    assert toy_client.get(f"/v1/jobs/{status['id']}/files/%2e%2e").status_code == 404
    html = finished(toy_client, post(toy_client, "long", steps=1, out="r.html"))
    fetched = toy_client.get(f"/v1/jobs/{html['id']}/files/out")
    assert fetched.headers["content-type"].startswith("text/html")
    assert "attachment" in fetched.headers["content-disposition"]  # never shown as a page of this server
    assert left_behind(toy) == []


def test_a_job_can_be_stopped(toy: Any, toy_client: httpx.Client) -> None:
    answer = post(toy_client, "long", steps=100_000)
    stopped = toy_client.delete(answer.headers["location"])
    assert stopped.status_code == 200
    status = finished(toy_client, answer)
    assert (status["state"], status["error"]["code"]) == ("interrupted", "interrupted")


def test_other_sites_are_refused(serve_toy: Any) -> None:
    with serve_toy(hosts=("localhost", "127.0.0.1")) as client:
        assert post(client, "add", left=1).status_code == 200
        own = client.post("/v1/add", json={"left": 1}, headers={"Origin": str(client.base_url).rstrip("/")})
        assert own.status_code == 200
        foreign = client.post("/v1/add", json={"left": 1}, headers={"Origin": "http://evil.example"})
        assert foreign.status_code == 403
        rebound = client.post("/v1/add", json={"left": 1}, headers={"Host": "evil.example"})
        assert rebound.status_code == 421
        for wrong, status in (({"Origin": "http://["}, 403), ({"Host": "[::1"}, 421)):
            broken = client.post("/v1/add", json={"left": 1}, headers=wrong)
            assert broken.status_code == status, "an address that is none is refused, not a crash"
            assert broken.json()["code"] == "invalid_input"


def test_health_and_pages(toy_client: httpx.Client) -> None:
    assert toy_client.get("/healthz").json() == {"status": "ok"}
    assert toy_client.get("/", follow_redirects=False).headers["location"] == "/docs"
    page = toy_client.get("/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    described = toy_client.get("/openapi.json").json()
    assert set(described["paths"]) >= {f"/v1/{name}" for name in OPERATIONS}


def test_the_engine_is_closed_at_the_end(toy: Any, serve_toy: Any) -> None:
    with serve_toy():
        assert not toy.closed
    assert toy.closed
