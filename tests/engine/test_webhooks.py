"""Webhooks: signed, told again until they are taken, given up and kept, and silent about people."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penchant.core.errors import ShopError
from penchant.engine import Engine, _webhooks
from penchant.engine._webhooks import Deliverer, Outbox

SECRET = "whsec_" + base64.b64encode(b"a key of the shop's own").decode()


class Receiver:
    """Somebody else's server: keeps what it is sent and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(outer.answers.pop(0) if outer.answers else 204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


def make(
    path: Path, url: str, *, secret: str = SECRET, on: str = '"consume", "erase_user", "catalog"'
) -> Engine:
    with Engine.open(path) as engine:
        engine.init(name="tea")
    text = (path / "shop.toml").read_text().replace("[webhooks]\n", "")
    table = f'\n[webhooks.erp]\nurl = "{url}"\nsecret = "{secret}"\non = [{on}]\n'
    (path / "shop.toml").write_text(text + table)
    return Engine.open(path)


@pytest.fixture
def engine(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(_webhooks, "_LOOK", 3600.0)  # the tests look themselves
    with make(tmp_path / "shop", receiver.url) as engine:
        yield engine


def told(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,title\ntea,Green tea\n")
    engine.catalog(files=[str(tmp_path / "items.csv")])


def test_what_an_operation_did_is_sent_and_signed(engine: Engine, receiver: Receiver, tmp_path: Path) -> None:
    told(engine, tmp_path)
    assert [d.state for d in engine.webhooks().deliveries] == ["waiting"]
    Deliverer(engine.shop).step()
    ((headers, body),) = receiver.got
    message = json.loads(body)
    assert (message["type"], message["shop"], message["data"]["accepted"]) == ("catalog", "tea", 1)
    key = base64.b64decode(SECRET[6:])
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 60
    assert engine.webhooks().deliveries == []


def test_operations_nobody_asked_for_and_those_that_fail_are_not_told(engine: Engine) -> None:
    engine.status()
    with pytest.raises(ShopError):
        engine.init()
    assert engine.webhooks().deliveries == []


def test_it_is_told_again_ever_less_often_and_then_given_up(
    engine: Engine, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(engine, tmp_path)
    receiver.answers = [500] * 12
    now = [time.time()]
    monkeypatch.setattr(_webhooks.time, "time", lambda: now[0])
    deliverer, waits = Deliverer(engine.shop), []
    for attempt in range(12):
        deliverer.step()
        assert len(receiver.got) == attempt + 1
        deliverer.step()
        assert len(receiver.got) == attempt + 1, "not before its time"
        if attempt == 11:
            break
        wait = min(5 * 2**attempt, 3600)
        waits.append(wait)
        now[0] += wait + 0.01
    (left,) = engine.webhooks().deliveries
    assert (left.state, left.tries, left.said) == ("dead", 12, "HTTP 500")
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1, "the receiver can tell repeats"
    assert engine.webhooks(retry=True).retried == 1
    deliverer.step()
    assert engine.webhooks().deliveries == []


@pytest.mark.parametrize(("answer", "state"), [(410, "dead"), (302, "waiting"), (404, "waiting")])
def test_answers(engine: Engine, receiver: Receiver, tmp_path: Path, answer: int, state: str) -> None:
    told(engine, tmp_path)
    receiver.answers = [answer]
    Deliverer(engine.shop).step()
    assert [d.state for d in engine.webhooks().deliveries] == [state]
    assert len(receiver.got) == 1, "redirects are not followed"


def test_a_message_outlives_the_process_and_holds_nobody(
    engine: Engine, receiver: Receiver, tmp_path: Path
) -> None:
    engine.observe(events=[{"kind": "view", "user_id": "anna-the-first", "item_id": "tea"}])
    engine.erase_user(user_id="anna-the-first")
    path = engine.shop.path
    engine.close()
    assert b"anna-the-first" not in (path / "outbox.db").read_bytes()
    (waiting,) = Outbox(path).all()
    assert (waiting.type, waiting.webhook) == ("erase_user", "erp")
    with Engine.open(path) as again:
        Deliverer(again.shop).step()
    data = json.loads(receiver.got[0][1])["data"]
    assert data["removed"]["journal"] == 1
    assert "subject" not in data


def test_a_server_delivers_by_itself(tmp_path: Path, receiver: Receiver) -> None:
    with make(tmp_path / "shop", receiver.url) as engine:
        engine.keep()
        told(engine, tmp_path)
        deadline = time.monotonic() + 20
        while not receiver.got and time.monotonic() < deadline:
            time.sleep(0.05)
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    ("url", "secret", "on"),
    [
        ("http://elsewhere.example/", SECRET, '"train"'),
        ("ftp://localhost/", SECRET, '"train"'),
        ("https://erp.example/", "short", '"train"'),
        ("https://erp.example/", SECRET, '"export_user"'),
        ("https://erp.example/", SECRET, ""),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, url: str, secret: str, on: str) -> None:
    with (
        make(tmp_path / "shop", url, secret=secret, on=on) as engine,
        pytest.raises(ShopError, match="webhooks"),
    ):
        engine.status()


def test_an_address_that_is_none_does_not_hold_up_the_others(tmp_path, receiver) -> None:
    make(tmp_path / "shop", "https://[::1", on='"catalog"').close()
    with open(tmp_path / "shop" / "shop.toml", "a") as file:
        file.write(f'\n[webhooks.next]\nurl = "{receiver.url}"\nsecret = "{SECRET}"\non = ["catalog"]\n')
    with Engine.open(tmp_path / "shop") as engine:
        told(engine, tmp_path)
        Deliverer(engine.shop).step()
        assert len(receiver.got) == 1
        (left,) = engine.webhooks().deliveries
        assert (left.webhook, left.tries, left.said) == ("erp", 1, "InvalidURL")


def test_the_secret_may_lie_in_the_environment(tmp_path, receiver, monkeypatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "a long secret")
    with make(tmp_path / "shop", receiver.url, secret="$HOOK_SECRET") as engine:
        told(engine, tmp_path)
        Deliverer(engine.shop).step()
        headers, body = receiver.got[0]
        stamp = int(headers["webhook-timestamp"])
        made = _webhooks.signature("a long secret", headers["webhook-id"], stamp, body)
        assert headers["webhook-signature"] == made


def test_a_slow_receiver_keeps_no_other_waiting(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_webhooks, "_LOOK", 0.05)
    hold = threading.Event()

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hold.wait(20)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    slow = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=slow.serve_forever, daemon=True).start()
    make(tmp_path / "shop", f"http://127.0.0.1:{slow.server_port}/hook").close()
    more = f'\n[webhooks.mail]\nurl = "{receiver.url}"\nsecret = "{SECRET}"\non = ["catalog"]\n'
    with (tmp_path / "shop" / "shop.toml").open("a") as config:
        config.write(more)
    try:
        with Engine.open(tmp_path / "shop") as engine:
            engine.keep()
            for number in range(1, 4):
                told(engine, tmp_path)
                deadline = time.monotonic() + 10
                while len(receiver.got) < number and time.monotonic() < deadline:
                    time.sleep(0.02)
                assert len(receiver.got) == number
            while len(engine.webhooks().deliveries) > 3 and time.monotonic() < deadline:
                time.sleep(0.02)  # what was received is noted as delivered a moment later
            assert {d.webhook for d in engine.webhooks().deliveries} == {"erp"}
            hold.set()
    finally:
        hold.set()
        slow.shutdown()
        slow.server_close()
