"""``penchant serve`` as a process: start, stop, what it loads, what a crash leaves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from penchant.engine import Engine


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with a trained model."""
    folder = tmp_path_factory.mktemp("serve")
    rows = ["event_id,ts,user_id,kind,item_id"]
    for person in range(30):
        rows += [
            f"e{person}-{day},2024-03-{1 + day:02d}T10:{person:02d}:00Z,u{person},view,i{(person + day) % 20}"
            for day in range(12)
        ]
    (folder / "events.csv").write_text("\n".join(rows) + "\n")
    path = folder / "shop"
    with Engine.open(path) as engine:
        engine.init()
        engine.ingest(files=[str(folder / "events.csv")])
        engine.train(models=["transitions"], device="cpu")
    return path


@contextlib.contextmanager
def serving(shop: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "penchant", "serve", "--shop", str(shop), "--port", "0", *options]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("serving "):
                break
        try:
            yield process, said
        finally:
            process.kill()


def url_in(said: str) -> str:
    return next(word for word in said.split() if word.startswith("http://"))


def test_it_serves_and_stops(shop: Path) -> None:
    with serving(shop) as (process, said):
        with httpx.Client(base_url=url_in(said), timeout=20) as client:
            ready = client.get("/readyz")
            assert ready.status_code == 200
            assert not ready.json()["degraded"]
            slate = client.post("/v1/recommend", json={"user_id": "u3", "k": 3}).json()
            assert len(slate["items"]) == 3
            told = client.post(
                "/v1/observe", json={"events": [{"kind": "view", "user_id": "u3", "item_id": "i5"}]}
            )
            assert told.json()["stored"] == 1
            odd = client.post("/v1/observe", json={"events": [{"kind": "dance"}]}).json()
            assert odd["results"][0]["status"] == "refused"
            deep = b'{"events": [{"kind": "view", "user_id": "u", "props": ' + b'{"a":' * 100_000
            answer = client.post("/v1/observe", content=deep, headers={"Content-Type": "application/json"})
            assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
            assert client.post("/v1/recommend", json={}, headers={"Host": "evil.example"}).status_code == 421
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout is not None
        assert process.stdout.read() == "stopped\n"
    with Engine.open(shop) as engine:  # the lock is free again
        assert engine.status().events == 361


def test_what_the_serving_process_loads(shop: Path) -> None:
    script = f"""
import sys
from penchant.surfaces.http import pin_threads
pin_threads()
from penchant.surfaces._memory import stay_small
stay_small()
from penchant.engine import Engine
from penchant.surfaces import create_app
from penchant.testing import running_server
import httpx
engine = Engine.open({str(shop)!r})
engine.warm()
with running_server(create_app(engine)) as url:
    slate = httpx.post(url + "/v1/recommend", json={{"user_id": "u1"}}).json()
    assert slate["items"] and not slate["degraded"], slate
    event = {{"kind": "view", "user_id": "u", "item_id": "i1"}}
    assert httpx.post(url + "/v1/observe", json={{"events": [event]}}).json()["stored"] == 1
    assert httpx.post(url + "/v1/profile", json={{"user_id": "u1"}}).status_code == 200
    assert httpx.post(url + "/v1/similar", json={{"item_id": "i1"}}).status_code == 200
    loaded = set(sys.modules)
heavy = {{"torch", "pandas", "ibis", "duckdb", "sklearn", "implicit", "matplotlib", "pyspark"}}
print(sorted(heavy & loaded))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr[-2000:]


@pytest.mark.slow  # the second one waits a while for the first
def test_a_second_writer_is_told(shop: Path) -> None:
    with serving(shop):
        done = subprocess.run(
            [sys.executable, "-m", "penchant", "observe", "--events", "[]", "--shop", str(shop)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 3
        assert "another process" in done.stderr


def test_a_taken_port_is_told(shop: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "penchant", "serve", "--shop", str(shop), "--port", port],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_no_shop_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "penchant", "serve", "--shop", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    assert "penchant init" in done.stderr


def test_an_open_address_asks_for_keys(shop: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "penchant", "serve", "--shop", str(shop), "--host", "0.0.0.0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "penchant keys create" in done.stderr
    with Engine.open(shop) as engine:
        secret = engine.keys(action="create", scopes=["serve", "govern"]).secret
    try:
        with serving(shop, "--host", "0.0.0.0") as (_, said):
            url = url_in(said).replace("0.0.0.0", "127.0.0.1")
            body = {"user_id": "u3", "k": 3}
            assert httpx.post(url + "/v1/recommend", json=body).status_code == 401
            with Engine.connect(url, key=secret) as engine:
                assert len(engine.recommend(user_id="u3", k=3).items) == 3
            env = {**os.environ, "PENCHANT_KEY": secret or "", "PENCHANT_URL": url}
            words = [sys.executable, "-m", "penchant", "status", "--json"]
            assert subprocess.run(words, capture_output=True, env=env, timeout=60).returncode == 0
            env["PENCHANT_KEY"] = "pk_wrong"
            assert subprocess.run(words, capture_output=True, env=env, timeout=60).returncode == 9
    finally:
        (shop / "keys.json").unlink()


def test_a_killed_server_leaves_its_job_interrupted(shop: Path) -> None:
    with serving(shop) as (process, said):
        answer = httpx.post(url_in(said) + "/v1/evaluate", json={}, timeout=20)
        assert answer.status_code == 202
        where = answer.headers["location"]
        deadline = time.monotonic() + 30
        while httpx.get(url_in(said) + where).json()["state"] == "queued" and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.wait()
    with serving(shop) as (_, said):
        status = httpx.get(url_in(said) + where).json()
        assert status["state"] == "interrupted"
        assert json.dumps(status).count("again") == 2  # in the hint and in the whole message
