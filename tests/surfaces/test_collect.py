"""The collector's addresses: what client libraries send, and what nobody should."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from penchant.engine import Engine
from penchant.surfaces import create_app
from penchant.surfaces._body import Limits
from penchant.testing import running_server

SHOP_PAGE = "https://shop.example"
VIEW = {"event": "Product Viewed", "messageId": "m1", "userId": "u1", "properties": {"product_id": "tea"}}


class Collector:
    """A shop's server and its write key."""

    def __init__(self, engine: Engine, url: str, keys: dict[str, str]) -> None:
        self.engine, self.url, self.keys = engine, url, keys
        self.client = httpx.Client(base_url=url, timeout=30)

    def send(self, path: str, body: Any, key: str | None = "write", **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        if key is not None:
            token = base64.b64encode(f"{self.keys.get(key, key)}:".encode()).decode()
            headers = {"Authorization": f"Basic {token}", **headers}
        return self.client.post(
            path, content=content, headers={"Content-Type": "application/json", **headers}
        )

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.engine.shop.store.scan().to_pylist()  # type: ignore[no-any-return]


@pytest.fixture
def collector(tmp_path: Any) -> Iterator[Collector]:
    engine = Engine.open(tmp_path / "shop")
    engine.init(name="tea")
    settings = tmp_path / "shop" / "shop.toml"
    settings.write_text(settings.read_text().replace("origins = []", f'origins = ["{SHOP_PAGE}"]'))
    keys = {s: engine.keys(action="create", scopes=[s]).secret or "" for s in ("write", "serve")}
    with running_server(create_app(engine, limits=Limits(body=100_000))) as url:
        yield Collector(engine, url, keys)


def test_single_calls(collector: Collector) -> None:
    assert collector.send("/v1/track", VIEW).json()["success"] is True
    assert collector.send("/v1/identify", {"anonymousId": "a1", "userId": "u1"}).status_code == 200
    assert collector.send("/v1/alias", {"previousId": "a2", "userId": "u1"}).status_code == 200
    for call in ("page", "screen", "group"):
        answer = collector.send(f"/v1/{call}", {"userId": "u1", "groupId": "g"})
        assert (answer.status_code, answer.json()["results"][0]["status"]) == (200, "ignored")
    again = collector.send("/v1/track", VIEW)
    assert (again.status_code, again.json()["results"][0]["status"]) == (200, "duplicate")
    other = collector.send("/v1/track", {**VIEW, "properties": {"product_id": "cup"}})
    assert (other.status_code, other.json()["status"]) == (409, 409)
    assert collector.send("/v1/track", {**VIEW, "userId": None}).status_code == 422
    assert [row["item_id"] for row in collector.events] == ["tea"]
    assert sorted(collector.engine.shop.store.guests("u1")) == ["anon:a1", "anon:a2"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_stores_the_good_and_tells_of_each(collector: Collector, packed: bool) -> None:
    batch = [
        {**VIEW, "type": "track"},
        {**VIEW, "type": "track", "messageId": "m2", "properties": {}},
        "nonsense",
        {"type": "group", "messageId": "m3", "userId": "u1"},
    ]
    body = json.dumps({"batch": batch, "sentAt": "2026-01-01T00:00:00Z", "context": {}}).encode()
    headers = {"Content-Encoding": "gzip"} if packed else {}
    answer = collector.send("/v1/batch", gzip.compress(body) if packed else body, **headers)
    assert answer.status_code == 200
    told = answer.json()
    assert [result["status"] for result in told["results"]] == ["stored", "refused", "refused", "ignored"]
    assert told["stored"] == len(collector.events) == 1


def test_the_sending_time_of_a_batch_corrects_its_messages(collector: Collector) -> None:
    old = {**VIEW, "type": "track", "timestamp": "2019-05-01T00:00:00Z"}
    collector.send("/v1/batch", {"batch": [old], "sentAt": "2019-05-01T01:00:00Z"})
    (row,) = collector.events
    assert abs(collector.engine.clock() - 3_600_000_000 - row["ts"]) < 60_000_000


def test_empty_batch(collector: Collector) -> None:
    assert collector.send("/v1/batch", {"batch": []}).json() == {"success": True, "stored": 0, "results": []}


BAD: list[tuple[bytes, int]] = [
    (b'{"batch": [', 400),
    (b"", 400),
    (b"[]", 400),
    (b"null", 400),
    (b'{"batch": ' + b"[" * 40_000 + b"]" * 40_000 + b"}", 400),
    (b'{"a":' * 15_000 + b"1" + b"}" * 15_000, 400),
    (b'{"batch": [], "batch": []}', 400),
    (b'{"batch": [{"userId": "a", "userId": "b"}]}', 400),
    (b'{"batch": [{"userId": "\\ud800"}]}', 400),
    (b'{"batch": ["\xff"]}', 400),
    (b'{"batch": [{"properties": {"price": NaN}}]}', 422),
    (b'{"batch": [{"properties": {"price": -Infinity}}]}', 422),
    (b'{"batch": [{"properties": {"price": 1e400}}]}', 422),
    (b'{"batch": [{"properties": {"price": 99999999999999999999999}}]}', 422),
    (b'{"batch": [{"properties": {"price": ' + b"9" * 5000 + b"}}]}", 422),
    (b'{"batch": 3}', 422),
    (b"{}", 422),
    (b'{"batch": [' + b" " * 100_000 + b"]}", 413),
    (b'{"batch": [' + b"1," * 10_000 + b"1]}", 413),
]


def test_a_name_that_comes_twice_among_many_is_found_at_once(collector: Collector) -> None:
    names = ",".join(f'"{number}":0' for number in range(8_000))
    started = time.process_time()
    answer = collector.send("/v1/track", f'{{{names},"z":0,"z":0}}'.encode())
    assert answer.status_code == 400
    assert time.process_time() - started < 0.3  # comparing each name with all took a second


@pytest.mark.parametrize("odd", [[], {}, 7, None])
def test_a_message_of_an_odd_type_is_refused_or_left_out_alone(collector: Collector, odd: Any) -> None:
    good = {"type": "track", "event": "Product Viewed", "messageId": "m1", "anonymousId": "phone"}
    batch = {"batch": [{"type": odd, "anonymousId": "phone"}, {**good, "properties": {"product_id": "tea"}}]}
    answer = collector.send("/v1/batch", json.dumps(batch).encode())
    assert answer.status_code == 200, answer.text
    assert [result["status"] for result in answer.json()["results"]][1] == "stored"


@pytest.mark.parametrize(("body", "status"), BAD)
def test_bad_bodies_are_problems(collector: Collector, body: bytes, status: int) -> None:
    answer = collector.send("/v1/batch", body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text
    assert collector.events == []


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"no gzip", "gzip", 400),
        (gzip.compress(b'{"batch": []}')[:-4], "gzip", 400),
        (gzip.compress(b'{"batch": []}') + gzip.compress(b"{}"), "gzip", 400),
        (gzip.compress(b" " * 50_000_000), "gzip", 413),
        (b'{"batch": []}', "br", 415),
    ],
    ids=["plain", "cut off", "two members", "a bomb", "unknown"],  # packed bytes hold the time of day
)
def test_bad_encodings_are_problems(collector: Collector, body: bytes, encoding: str, status: int) -> None:
    assert collector.send("/v1/batch", body, **{"Content-Encoding": encoding}).status_code == status


@pytest.mark.parametrize(
    "event",
    [
        {"userId": "u" * 10_000},
        {"userId": " \t "},
        {"userId": "u\x00"},
        {"userId": "u\n1"},
        {"userId": "u\u202e1"},
        {"userId": {"a": 1}},
        {"timestamp": "1970-01-01T00:00:00Z"},
        {"timestamp": "2099-01-01T00:00:00Z"},
        {"timestamp": "soon"},
        {"timestamp": "2016-12-31T23:59:60Z"},
        {"properties": []},
        {"properties": {"product_id": ""}},
        {"properties": {"product_id": "x", "price": -1}},
        {"properties": {"product_id": "x", "price": 1e12}},
        {"properties": {"product_id": "x", "price": "cheap"}},
        {"properties": {"product_id": "x", "price": True}},
        {"properties": {"product_id": "x", "quantity": 0}},
        {"properties": {"product_id": "x", "quantity": -3}},
        {"properties": {"product_id": "x", "currency": "money"}},
        {"properties": {"product_id": "x", "position": -2}},
    ],
)
def test_messages_that_cannot_be_believed_are_refused_and_kept_aside(
    collector: Collector, event: dict[str, Any]
) -> None:
    answer = collector.send("/v1/track", {**VIEW, **event})
    if (
        answer.status_code == 200
    ):  # an id that is an object is told apart from every other, and none of anybody's
        assert event == {"userId": {"a": 1}}
        return
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid_input"
    assert collector.events == []
    assert collector.engine.dead_letters().kept == 1


def test_twins_in_unicode_are_one_person(collector: Collector) -> None:
    for number, name in enumerate(("caf\u00e9", "cafe\u0301")):
        collector.send("/v1/track", {**VIEW, "messageId": f"m{number}", "userId": name})
    assert {row["subject"] for row in collector.events} == {"caf\u00e9"}


def test_keys(collector: Collector) -> None:
    assert collector.send("/v1/track", VIEW, key=None).status_code == 401
    assert collector.send("/v1/track", VIEW, key="nonsense").status_code == 401
    assert collector.send("/v1/track", VIEW, key="serve").status_code == 403
    write = collector.keys["write"]
    assert collector.send(f"/v1/track?writeKey={write}", VIEW, key=None).status_code == 401
    assert collector.send(f"/v1/track?api_secret={write}", VIEW, key=None).status_code == 401
    assert collector.send("/v1/track", VIEW, None, Authorization="Basic %%%").status_code == 401
    assert collector.send("/v1/track", VIEW, None, Authorization=f"Bearer {write}").status_code == 200
    assert collector.client.get("/v1/track", headers={"X-Api-Key": write}).status_code == 405


def test_pages_of_the_shop_may_send_and_others_may_not(collector: Collector) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = collector.client.options("/v1/batch", headers={"Origin": SHOP_PAGE, **asked})
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == SHOP_PAGE
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    answer = collector.send("/v1/track", VIEW, Origin=SHOP_PAGE)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, SHOP_PAGE)
    assert answer.headers["vary"] == "Origin"
    for stranger in ("https://evil.example", "null", f"{SHOP_PAGE}.evil.example", "http://shop.example"):
        assert collector.client.options("/v1/batch", headers={"Origin": stranger, **asked}).status_code == 403
        refused = collector.send("/v1/track", {**VIEW, "messageId": "m2"}, Origin=stranger)
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
    assert collector.send("/v1/recommend", {"user_id": "u1"}, Origin=SHOP_PAGE).status_code == 403
    assert len(collector.events) == 1


def test_global_privacy_control_is_respected(collector: Collector) -> None:
    answer = collector.send("/v1/batch", {"batch": [{**VIEW, "type": "track"}]}, **{"Sec-GPC": "1"})
    assert (answer.status_code, answer.json()["declined"]) == (200, 1)
    assert collector.events == []
    assert collector.engine.dead_letters().kept == 0


def measured(name: str = "view_item", **params: Any) -> dict[str, Any]:
    return {
        "client_id": "c1",
        "events": [{"name": name, "params": params or {"items": [{"item_id": "tea"}]}}],
    }


def test_measurement_protocol(collector: Collector) -> None:
    path = f"/mp/collect?measurement_id=G-1&api_secret={collector.keys['write']}"
    assert collector.send(path, measured(), key=None).status_code == 204
    assert [(row["kind"], row["item_id"]) for row in collector.events] == [("view", "tea")]
    partly = measured()
    partly["events"] += [{"name": "view_item"}, {"name": "page_view"}, 3]
    told = collector.send(path, partly, key=None)
    assert told.status_code == 200
    assert [r["status"] for r in told.json()["results"]] == ["stored", "refused", "ignored", "ignored"]
    assert collector.send(path, {**measured(), "client_id": ""}, key=None).status_code == 422
    assert collector.send(path, {"client_id": "c1", "events": [{}] * 26}, key=None).status_code == 413
    assert collector.send(path, {"client_id": "c1"}, key=None).status_code == 422
    assert collector.send("/mp/collect?api_secret=wrong", measured(), key=None).status_code == 401
    assert collector.send("/mp/collect", measured(), key=None).status_code == 401


def test_the_validation_of_the_measurement_protocol_stores_nothing(collector: Collector) -> None:
    path = f"/debug/mp/collect?api_secret={collector.keys['write']}"
    assert collector.send(path, measured(), key=None).json() == {"validationMessages": []}
    (message,) = collector.send(path, measured(items=[{}]), key=None).json()["validationMessages"]
    assert message["fieldPath"] == "events[0]"
    assert "missing_item" in message["description"]
    assert collector.events == []


def test_what_was_acknowledged_is_on_disk(collector: Collector, tmp_path: Any) -> None:
    """A copy of the files, taken while the server runs as a power cut would leave them, holds the event."""
    import shutil

    assert collector.send("/v1/track", VIEW).status_code == 200
    shutil.copytree(
        tmp_path / "shop", tmp_path / "copy", symlinks=True, ignore=shutil.ignore_patterns("*lock*")
    )
    with Engine.open(tmp_path / "copy", readonly=True) as copy:
        assert copy.shop.store.scan()["item_id"].to_pylist() == ["tea"]
