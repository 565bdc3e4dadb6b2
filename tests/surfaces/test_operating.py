"""What whoever operates a server sees of it: ids, headers, numbers, logs, traces, new settings; never a person."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from penchant.core.errors import InputError, ShopError
from penchant.engine import Engine
from penchant.surfaces import create_app
from penchant.surfaces._traces import Traces
from penchant.testing import running_server

CANARY = "canary-7f3a"  # stands in every place where a person's data can stand


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    with Engine.open(tmp_path / "shop") as engine:
        engine.init(name="s")
    return tmp_path / "shop"


@pytest.fixture
def client(shop: Path) -> Iterator[httpx.Client]:
    with (
        running_server(create_app(Engine.open(shop))) as url,
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        yield client


def test_every_answer_has_an_id_and_safe_headers(client: httpx.Client) -> None:
    answers = [
        client.post("/v1/recommend", json={"user_id": "u"}),
        client.post("/v1/recommend", json={"k": 0}),
        client.post("/v1/recommend", content=b"{", headers={"Content-Type": "application/json"}),
        client.get("/nothing"),
        client.get("/v1/jobs/none"),
        client.get("/healthz"),
        client.get("/docs"),
        client.get("/metrics"),
        client.post("/v1/status", json={}, headers={"Origin": "http://evil.example"}),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
        assert "strict-transport-security" not in answer.headers  # not by HTTPS
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


def test_an_id_of_the_caller_is_kept_where_it_is_one(client: httpx.Client) -> None:
    sent = client.get("/healthz", headers={"X-Request-Id": "gateway-17.a"})
    assert sent.headers["x-request-id"] == "gateway-17.a"
    for odd in ("a b", "x" * 65, "a\tb"):
        assert client.get("/healthz", headers={"X-Request-Id": odd}).headers["x-request-id"] != odd


def test_numbers_for_prometheus(client: httpx.Client) -> None:
    event = {
        "kind": "view",
        "user_id": CANARY,
        "item_id": "i1",
        "event_id": "e1",
        "ts": 1_718_000_000_000_000,
    }
    for _ in range(2):
        client.post("/v1/observe", json={"events": [event, {"kind": "dance"}]})
    client.post("/v1/recommend", json={"user_id": CANARY})
    client.post("/v1/recommend", json={"k": 0})
    client.get(f"/{CANARY}")
    page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=")
    for line in (
        'penchant_requests_total{route="/v1/observe",status="200"} 2.0',
        'penchant_requests_total{route="/v1/recommend",status="422"} 1.0',
        'penchant_requests_total{route="other",status="404"} 1.0',
        'penchant_request_seconds_count{route="/v1/recommend"} 2.0',
        'penchant_events_total{status="stored"} 1.0',
        'penchant_events_total{status="duplicate"} 1.0',
        'penchant_events_total{status="refused"} 2.0',
        "penchant_degraded 1.0",
        "penchant_up 1.0",
    ):
        assert line in page.text
    assert re.search(r"penchant_last_event_timestamp_seconds 1\.718e\+09", page.text)
    assert "process_resident_memory_bytes" in page.text
    assert CANARY not in page.text


def test_the_numbers_want_a_key(shop: Path) -> None:
    engine = Engine.open(shop)
    serve, govern = (engine.keys(action="create", scopes=[s]).secret for s in ("serve", "govern"))
    with running_server(create_app(engine)) as url:
        codes = [
            httpx.get(url + "/metrics", headers={"Authorization": f"Bearer {key}"}).status_code
            for key in ("", serve, govern)
            if key != ""
        ]
        assert codes == [403, 200]
        assert httpx.get(url + "/metrics").status_code == 401


def start(shop: Path, *options: str, **env: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "penchant", "serve", "--shop", str(shop), "--port", "0", *options]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    return process, next(word for word in said.split() if word.startswith("http"))


def test_no_person_in_logs_and_new_settings_without_a_restart(shop: Path) -> None:
    process, url = start(shop, "--log", "json")
    try:
        with httpx.Client(base_url=url, timeout=20) as client:
            _say_everything(client)
            toml = (shop / "shop.toml").read_text()
            assert 'seen = "auto"' in toml
            (shop / "shop.toml").write_text(toml.replace('seen = "auto"', 'sen = "allow"'))
            process.send_signal(signal.SIGHUP)  # a typo: told, and the server goes on
            time.sleep(0.3)
            assert client.post("/v1/reload", json={}).json()["detail"].count("`sen`") == 1
            (shop / "shop.toml").write_text(toml.replace("reasons = 1", "reasons = 0"))
            assert client.post("/v1/reload", json={}).json() == {"changed": ["serve"]}
            slate = client.post("/v1/recommend", json={"user_id": CANARY, "seen": "allow"}).json()
            assert slate["items"][0]["reasons"] == []
            (shop / "shop.toml").write_text(toml)
            process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 10
            while not client.post("/v1/recommend", json={"user_id": "x"}).json()["items"][0]["reasons"]:
                assert time.monotonic() < deadline
                time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert CANARY not in out + err
    assert "Traceback" not in out + err
    lines = [json.loads(line) for line in err.splitlines()]
    answered = [line for line in lines if line["message"] == "answered"]
    assert {line["route"] for line in answered} >= {"/v1/observe", "/v1/recommend", "other"}
    assert all(line["request_id"] and line["status"] and line["seconds"] >= 0 for line in answered)
    assert any("settings stay" in line["message"] and line["level"] == "error" for line in lines)
    logged = [path for path in shop.rglob("*.log") if path.is_file()]
    assert [path.name for path in logged] == ["access.log"]
    assert all(CANARY not in path.read_text() for path in logged)


def _say_everything(client: httpx.Client) -> None:
    """Send the canary wherever a request can hold it, rightly and wrongly."""
    event: dict[str, Any] = {"kind": "view", "user_id": CANARY, "item_id": "i", "props": {CANARY: CANARY}}
    client.post("/v1/observe", json={"events": [event, {**event, "kind": CANARY}, {CANARY: 1}, CANARY]})
    client.post("/v1/observe", content=CANARY.encode(), headers={"Content-Type": "application/json"})
    client.post("/v1/observe", content=CANARY.encode(), headers={"Content-Type": CANARY})
    for body in ({"user_id": CANARY}, {CANARY: CANARY}, {"user_id": CANARY, "k": 0}, {"filters": [CANARY]}):
        for name in ("recommend", "profile", "similar", "export_user", "erase_user", "keys", "promote"):
            client.post(
                f"/v1/{name}", json=body, headers={"Authorization": CANARY, "X-Request-Id": "r/" + CANARY}
            )
        client.get(f"/v1/jobs/{CANARY}")
    client.get(f"/{CANARY}?{CANARY}")
    client.post(f"/v1/recommend?user_id={CANARY}", json={}, headers={"User-Agent": CANARY, "Cookie": CANARY})
    deadline = time.monotonic() + 20
    while {"queued", "running"} & {job["state"] for job in client.get("/v1/jobs").json()}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    client.post("/v1/observe", json={"events": [{"kind": "view", "user_id": "x", "item_id": "i"}]})


def test_a_crash_is_logged_without_its_message(capfd: pytest.CaptureFixture[str]) -> None:
    from penchant.surfaces._logs import configure

    kept = {name: logging.getLogger(name) for name in ("penchant", "uvicorn", "penchant.requests")}
    before = {name: (log.handlers, log.propagate, log.level) for name, log in kept.items()}
    try:
        for kind in ("json", "text"):
            configure(kind)  # type: ignore[arg-type]
            try:
                raise ValueError(CANARY)
            except ValueError:
                logging.getLogger("uvicorn.some").exception("it failed")
            told = capfd.readouterr().err
            assert "ValueError" in told
            assert "test_operating.py" in told
            assert CANARY not in told
    finally:
        for name, (handlers, propagate, level) in before.items():
            kept[name].handlers, kept[name].propagate = handlers, propagate
            kept[name].setLevel(level)


def test_requests_are_traced(shop: Path) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace = "0af7651916cd43dd8448eb211c80319c"
    with running_server(create_app(Engine.open(shop), traces=Traces(provider))) as url:
        headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        answer = httpx.post(url + "/v1/recommend", json={"user_id": CANARY}, headers=headers)
        httpx.get(url + f"/{CANARY}")
    first, other = kept.get_finished_spans()
    assert first.name == "POST /v1/recommend"
    assert f"{first.context.trace_id:032x}" == trace
    assert first.attributes is not None
    assert first.attributes["http.response.status_code"] == 200
    assert first.attributes["penchant.request_id"] == answer.headers["x-request-id"]
    assert other.name == "GET other"
    assert CANARY not in str([first.to_json(), other.to_json()])


def test_https_with_a_certificate(shop: Path, tmp_path: Path) -> None:
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run([*made, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    process, url = start(shop, "--tls-cert", str(certificate), "--tls-key", str(key))
    try:
        assert url.startswith("https://")
        answer = httpx.get(url + "/healthz", verify=False)
        assert answer.headers["strict-transport-security"].startswith("max-age=")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_half_of_a_certificate_is_refused(shop: Path) -> None:
    from penchant.surfaces.cli import _tls

    with pytest.raises(InputError, match="certificate and its key"):
        _tls("c.pem", None)
    with pytest.raises(InputError, match="cannot be read"):
        _tls("/nowhere/c.pem", "/nowhere/k.pem")


def test_reload_refuses_a_wrong_key_by_name(shop: Path) -> None:
    with Engine.open(shop) as engine:
        engine.status()
        (shop / "shop.toml").write_text('name = "s"\n[serve]\nreasonz = 3\n')
        with pytest.raises(ShopError, match="reasonz"):
            engine.reload()
        assert engine.shop.config.serve.reasons == 1
        (shop / "shop.toml").write_text('name = "s"\nseen = "allow"\n[data]\ncurrency = "USD"\n')
        assert "seen" in engine.reload().changed


def test_a_request_that_runs_is_answered_before_the_end(shop: Path) -> None:
    process, url = start(shop)
    address = urlsplit(url)
    body = b'{"events": [{"kind": "view", "user_id": "u1", "item_id": "i1"}]}'
    try:
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=20) as line:
            head = (
                f"POST /v1/observe HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
            )
            line.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
            time.sleep(0.3)  # the server has begun with it
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            with pytest.raises(httpx.ConnectError):
                httpx.get(url + "/healthz")
            line.sendall(body[10:])
            answer = b""
            while piece := line.recv(4096):  # to the end: the server closes the connection
                answer += piece
            assert b'"stored":1' in answer
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
    with Engine.open(shop) as engine:
        assert engine.status().events == 1
