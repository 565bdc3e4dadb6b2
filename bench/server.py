"""The server as a shop meets it: answers and events over sockets, measured with wrk (``apt-get install wrk``).

Everything is on: the sequence model, fresh events, exploration, the decision log. Beside it the same answer as it is
usually built (FastAPI, PyTorch, top-k; no exploring, no log), RecTools' call, and a bare route of our own server, which
is the ceiling. Ratios are of figures taken minutes apart at most, on one machine.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from machine import busy, describe
from serve import PEER, generate

HERE = Path(__file__).parent
USERS = 2000

RESULT = """
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %f %f %f %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), latency.max, summary.errors.status + summary.errors.timeout + summary.errors.connect))
end
"""
RECOMMEND = """
math.randomseed(7)
request = function()
  local body = '{"user_id":"u' .. math.random(0, USERS - 1) .. '","k":10FILTERS}'
  return wrk.format("POST", "/v1/recommend", {["Content-Type"]="application/json"}, body)
end
"""
OBSERVE = """
local count, number = 0, 0
function setup(thread) count = count + 1; thread:set("number", count) end
function init(args) math.randomseed(number); prefix = "STAMP-" .. number .. "-" end
request = function()
  local events = {}
  for i = 1, EVENTS do
    count = count + 1
    events[i] = '{"kind":"view","event_id":"' .. prefix .. count .. '","user_id":"u' .. math.random(0, USERS - 1)
      .. '","item_id":"i' .. math.random(0, 11999) .. '","session_id":"s1"}'
  end
  local body = '{"events":[' .. table.concat(events, ",") .. ']}'
  return wrk.format("POST", "/v1/observe", {["Content-Type"]="application/json"}, body)
end
"""
BARE = """
request = function() return wrk.format("GET", "/healthz") end
"""


def make_shop(folder: Path, items: int) -> Path:
    """A shop with a sequence model over so many items; the network is trained for one epoch, for only speed counts."""
    from penchant import Engine
    from penchant.core import KIND_CODES, Run, Vocabulary
    from penchant.data import sequence_batch
    from penchant.models import INDEX_ITEMS, QuantizedIndex, choose_index
    from penchant.testing import snapshot_from_arrays
    from penchant.training import fit_model, save_artifact

    folder.mkdir(parents=True)
    events, catalog = folder / "events.parquet", folder / "items.parquet"
    generate(events, USERS, items)
    table = pa.table(
        {"id": [f"i{n}" for n in range(items)], "category": [f"c{n % 20}" for n in range(items)]}
    )
    pq.write_table(table, catalog)
    with Engine.open(folder / "shop") as engine:
        engine.init()
        engine.catalog(files=[str(catalog)])
        engine.ingest(files=[str(events)])
        found = pq.read_table(events).to_pydict()
        ids = sorted(f"i{n}" for n in range(items))
        number = {key: n for n, key in enumerate(ids, 1)}
        snapshot = snapshot_from_arrays(
            users=Vocabulary([f"u{n}" for n in range(USERS)]),
            items=Vocabulary(ids),
            row=np.array([int(user[1:]) for user in found["user_id"]]),
            item=np.array([number[item] for item in found["item_id"]]),
            kind=np.full(len(found["kind"]), KIND_CODES["view"], np.uint8),
            ts=np.array([int(moment.timestamp() * 1e6) for moment in found["timestamp"]]),
        )
        settings = {"size": "small", "loss": "sampled", "epochs": 1, "attributes": False}
        model = fit_model("sequence", snapshot, settings, Run())
        if items >= INDEX_ITEMS:
            mean_QRD, _ = model.interests(sequence_batch(snapshot, np.arange(200), 50))
            index, report = choose_index(model.item_ND, mean_QRD, model.bias_N)
            print(f"  index {report.kind}: recall@100 {report.recall.value:.4f}")
            if isinstance(index, QuantizedIndex):
                model = replace(model, approximate=index)
        artifact = save_artifact(
            engine.shop.artifacts, model, kind="sequence", as_of=snapshot.as_of, items=snapshot.items
        )
        engine.promote(artifact=artifact.id)
    return folder / "shop"


@contextlib.contextmanager
def serving(
    command: list[str], environment: dict[str, str] | None = None
) -> Iterator[tuple[str, psutil.Process]]:
    """A server on a free port (``PORT`` in the command), until it answers; its address and process."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    words = [word.replace("PORT", str(port)) for word in command]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    with subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server did not start: {process.stderr.read().decode()[-2000:]}")
            time.sleep(0.1)
        try:
            yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


def shop_server(shop: Path) -> list[str]:
    return [sys.executable, "-m", "penchant", "serve", "--shop", str(shop), "--port", "PORT"]


def wrk(url: str, script: str, connections: int, seconds: float, process: psutil.Process) -> dict[str, float]:
    """Requests a second, latencies in milliseconds, errors, and milliseconds of CPU that the server took for each."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script.replace("USERS", str(USERS)).replace("STAMP", str(time.time_ns())) + RESULT)
        file.flush()
        before = sum(process.cpu_times()[:2])
        words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", file.name, url]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        cpu = sum(process.cpu_times()[:2]) - before
    line = next(line for line in said.splitlines() if line.startswith("RESULT"))
    requests, duration, middle, slow, worst, errors = (float(word) for word in line.split()[1:])
    return {
        "rps": requests / duration * 1e6, "p50": middle / 1e3, "p99": slow / 1e3, "max": worst / 1e3,
        "errors": errors, "cpu": 1e3 * cpu / max(requests, 1), "ok": (requests - errors) / duration * 1e6,
    }  # fmt: skip


@contextlib.contextmanager
def admitted(url: str) -> Iterator[list[float]]:
    """Four clients more, while many flood the server: milliseconds of each answer that they were let in for."""
    waits: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        address = urlsplit(url)
        client = http.client.HTTPConnection(address.hostname or "", address.port)
        while not stop.is_set():
            body = json.dumps({"user_id": f"u{len(waits) % USERS}", "k": 10})
            began = time.perf_counter()
            client.request("POST", "/v1/recommend", body, {"Content-Type": "application/json"})
            answer = client.getresponse()
            answer.read()
            if answer.status == 200:
                waits.append(1e3 * (time.perf_counter() - began))
            else:
                time.sleep(0.02)
        client.close()

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        yield waits
    finally:
        stop.set()
        for client in clients:
            client.join()


def show(name: str, found: dict[str, float]) -> None:
    print(
        f"{name:44s} {found['rps']:8,.0f}/s  p50 {found['p50']:7.2f}  p99 {found['p99']:7.2f} ms"
        f"  {found['cpu']:.3f} ms of CPU each  {found['errors']:,.0f} refused",
        flush=True,
    )


def rss(process: psutil.Process) -> float:
    return process.memory_info().rss / 1e6


def answers(shop: Path, items: int, seconds: float) -> dict[str, float]:
    """Measure one shop's answers; gives the figures of one connection."""
    with serving(shop_server(shop)) as (url, process):
        script = RECOMMEND.replace("FILTERS", "")
        wrk(url, script, 1, 1, process)
        one = wrk(url, script, 1, seconds, process)
        show(f"recommend, {items:,} items, 1 connection", one)
        filtered = RECOMMEND.replace("FILTERS", ',"filters":["category = c3"]')
        show("  with a filter", wrk(url, filtered, 1, seconds, process))
        show("  8 connections", wrk(url, script, 8, seconds, process))
        if items <= 20_000:
            with admitted(url) as waits:
                over = wrk(url, script, 640, seconds, process)
            show("  640 connections, ten times the line", over)
            print(
                f"  answers meanwhile: {over['ok']:,.0f}/s; four more clients were let in {len(waits)} times: "
                f"p50 {np.percentile(waits, 50):.0f}, p99 {np.percentile(waits, 99):.0f} ms"
                if waits
                else "  no client more was let in"
            )
            show("  and afterwards, 1 connection", wrk(url, script, 1, seconds, process))
            bare = wrk(url, BARE, 1, seconds, process)
            show("a bare route of the same server", bare)
            print(f"  of the ceiling: {one['rps'] / bare['rps']:.2f}")
        own = process.memory_full_info().uss / 1e6
        print(f"  memory of the process: {rss(process):.0f} MB, {own:.0f} MB of them its own")
    return one


def ingest(shop: Path, seconds: float) -> None:
    """Events in batches of 100 and one by one, all on disk before they are acknowledged."""
    with serving(shop_server(shop)) as (url, process):
        for events, connections, target in ((100, 4, 20_000), (100, 8, 20_000), (1, 64, 5_000)):
            found = wrk(url, OBSERVE.replace("EVENTS", str(events)), connections, seconds, process)
            show(f"observe, {events} an event list, {connections} connections", found)
            rate = found["ok"] * events
            print(
                f"  {rate:,.0f} events/s acknowledged; target {target:,}: {'met' if rate >= target else 'MISSED'}"
            )


def soak(shop: Path, minutes: float) -> None:
    """Events and answers side by side, and the memory meanwhile."""
    with serving(shop_server(shop)) as (url, process):
        sizes = []
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            wrk(url, OBSERVE.replace("EVENTS", "10"), 8, 5, process)
            wrk(url, RECOMMEND.replace("FILTERS", ""), 4, 5, process)
            sizes.append(process.memory_full_info().uss / 1e6)
        early, late = np.median(sizes[1 : len(sizes) // 3 + 1]), np.median(sizes[-(len(sizes) // 3) - 1 :])
        print(f"soak of {minutes:g} minutes: {early:.0f} MB of its own early, {late:.0f} MB late")


def usual(python: str, items: int, seconds: float) -> dict[str, float]:
    """FastAPI and PyTorch."""
    command = [python, "-m", "uvicorn", "fastapi_app:app", "--port", "PORT", "--log-level", "error"]
    environment = {"PYTHONPATH": os.pathsep.join([str(HERE / "peers"), os.environ.get("PEER_PATH", "")])}
    with serving(command, {**environment, "ITEMS": str(items)}) as (url, process):
        script = RECOMMEND.replace("FILTERS", "")
        wrk(url, script, 1, 1, process)
        found = wrk(url, script, 1, seconds, process)
        show("the usual build (FastAPI + torch), 1 connection", found)
        print(f"  memory of the process: {rss(process):.0f} MB")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[12_000, 100_000, 1_000_000])
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--soak", type=float, default=0, help="minutes")
    parser.add_argument("--folder", type=Path, help="keep the shops here and use those that are there")
    parser.add_argument("--usual", help="python with fastapi, uvicorn and torch (PEER_PATH: more folders)")
    parser.add_argument("--peer", help="python of an environment with bench/peers/rectools.txt installed")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    print(describe())
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours: dict[str, float] = {}
        for items in arguments.items:
            shop = folder / f"{items}" / "shop"
            if not shop.exists():
                make_shop(shop.parent, items)
            found = answers(shop, items, arguments.seconds)
            if items == arguments.items[0]:
                ours = found
                ingest(shop, arguments.seconds)
                if arguments.soak:
                    soak(shop, arguments.soak)
        items = arguments.items[0]
        if arguments.usual:
            other = usual(arguments.usual, items, arguments.seconds)
            print(
                f"  ours answers {ours['rps'] / other['rps']:.2f} times as many on one connection (target 1.8)"
            )
        if arguments.peer:
            words = [arguments.peer, "-W", "ignore", "-c", PEER, str(folder / f"{items}" / "events.parquet")]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            peer = float(done.stdout.split()[-1])
            print(
                f"RecTools' call for one user: p50 {peer:.1f} ms; ratio {peer / ours['p50']:.1f} (target 25)"
            )
    print(busy() or json.dumps({"targets": {"p50": ours["p50"] <= 1, "p99": ours["p99"] <= 3}}))


if __name__ == "__main__":
    main()
