"""Keys at the server's door: every route, every way to send a key, and one shop never reached by another's key."""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from penchant.engine import OPERATIONS, Engine, Keyring
from penchant.surfaces import create_app, openapi
from penchant.surfaces._collect import COLLECT_PATHS
from penchant.surfaces._gate import KEYS_IN_QUERY
from penchant.testing import running_server

SCOPES = ("write", "serve", "manage", "govern")


class Shops:
    """Two shops behind one server, with a key for each scope."""

    def __init__(self, url: str, paths: dict[str, Path], keys: dict[str, dict[str, str]]) -> None:
        self.paths, self.keys = paths, keys
        self.client = httpx.Client(base_url=url, timeout=30)

    def call(self, method: str, path: str, key: str | None, **options: Any) -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return self.client.request(method, path, headers=headers, **options)


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shops]:
    folder = tmp_path_factory.mktemp("gate")
    paths, keys, engines = {}, {}, []
    for name in ("tea", "shoes"):
        paths[name] = folder / name
        engine = Engine.open(paths[name])
        engine.init(name=name)
        event = {"kind": "view", "user_id": f"person-of-{name}", "item_id": f"item-of-{name}"}
        engine.observe(events=[event])
        keys[name] = {s: engine.keys(action="create", scopes=[s]).secret or "" for s in SCOPES}
        keys[name]["all"] = engine.keys(action="create", scopes=list(SCOPES)).secret or ""
        engines.append(engine)
    with running_server(create_app(engines)) as url:
        yield Shops(url, paths, keys)


def routes() -> list[tuple[str, str]]:
    """Every route of the server that is behind the gate, as the OpenAPI document names them."""
    found = []
    for path, item in openapi()["paths"].items():
        if path.startswith("/v1/"):
            found += [(verb.upper(), re.sub(r"{\w+}", "some", path)) for verb in item]
    return found


@pytest.mark.parametrize(("method", "path"), routes())
def test_no_route_answers_without_a_key(shops: Shops, method: str, path: str) -> None:
    wrong = ["x", "nonsense", "pk_" + "0" * 12 + "_" + "a" * 43, shops.keys["tea"]["all"][:-1] + "!"]
    answers = [shops.call(method, path, None, json={})]
    answers += [shops.call(method, path, key, json={}) for key in wrong]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1, "the answers tell the cases apart"
    assert answers[0].headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_a_key_opens_its_scopes_alone(shops: Shops, name: str) -> None:
    for scope in SCOPES:
        answer = shops.call("POST", f"/v1/{name}", shops.keys["tea"][scope], json={"no_such_field": 1})
        assert answer.status_code == (422 if scope == OPERATIONS[name].scope else 403), (scope, answer.text)


def test_the_key_decides_which_shop_answers(shops: Shops) -> None:
    for name, other in (("tea", "shoes"), ("shoes", "tea")):
        key = shops.keys[name]["all"]
        status = shops.call("POST", "/v1/status", key, json={}).json()
        assert status["name"] == name
        for operation in ("recommend", "profile"):
            answer = shops.call("POST", f"/v1/{operation}", key, json={"user_id": f"person-of-{other}"})
            stranger = shops.call("POST", f"/v1/{operation}", key, json={"user_id": "nobody-at-all"})
            assert answer.status_code == stranger.status_code == 200
            assert f"item-of-{other}" not in answer.text
            assert _shape(answer) == _shape(stranger), "another shop's person looks like nobody"
        similar = shops.call("POST", "/v1/similar", key, json={"item_id": f"item-of-{other}"})
        assert similar.status_code == 404
        entries = shops.call("POST", "/v1/access_log", key, json={"k": 1000}).json()["entries"]
        own = {secret.split("_")[1] for secret in shops.keys[name].values()}
        assert {entry["key"] for entry in entries if entry["key"]} <= own


@pytest.mark.parametrize("path", sorted(COLLECT_PATHS))
def test_the_collector_takes_keys_of_events_alone(shops: Shops, path: str) -> None:
    body = {"batch": [], "events": [], "client_id": "c1", "userId": "u", "event": "x", "name": "x"}
    query = {"api_secret": shops.keys["tea"]["write"]} if path in KEYS_IN_QUERY else {}
    assert shops.call("POST", path, None, json=body).status_code == 401
    assert shops.call("POST", path, "pk_wrong", json=body).status_code == 401
    for scope in ("serve", "manage", "govern"):
        assert shops.call("POST", path, shops.keys["tea"][scope], json=body).status_code == 403
    opened = [shops.call("POST", path, shops.keys["tea"]["write"], json=body)]
    if query:
        opened.append(shops.call("POST", path, None, json=body, params=query))
        assert shops.call("POST", path, None, json=body, params={"api_secret": "x"}).status_code == 401
    assert all(answer.status_code not in {401, 403} for answer in opened)


def test_what_is_collected_stays_in_its_shop(shops: Shops) -> None:
    message = {
        "type": "track", "event": "Product Viewed", "userId": "collected", "messageId": "only-tea",
        "properties": {"product_id": "item-of-tea"},
    }  # fmt: skip
    sent = shops.call("POST", "/v1/batch", shops.keys["tea"]["write"], json={"batch": [message]})
    assert sent.json()["stored"] == 1
    counts = [
        shops.call("POST", "/v1/profile", shops.keys[name]["serve"], json={"user_id": "collected"}).json()
        for name in ("tea", "shoes")
    ]
    assert [profile["events"] for profile in counts] == [1, 0]
    again = shops.call("POST", "/v1/batch", shops.keys["shoes"]["write"], json={"batch": [message]})
    assert again.json()["stored"] == 1  # the same id in another shop is another message


def _shape(answer: httpx.Response) -> str:
    return re.sub(r"person-of-\w+|nobody-at-all|\d+|\"[0-9a-f]+\"", "", answer.text)


def test_jobs_belong_to_a_shop_and_to_a_scope(shops: Shops) -> None:
    person = {"user_id": "person-of-tea"}
    made = shops.call("POST", "/v1/export_user", shops.keys["tea"]["govern"], json=person)
    assert made.status_code == 202
    where = made.headers["location"]
    deadline = time.monotonic() + 20
    while shops.call("GET", where, shops.keys["tea"]["govern"]).json()["state"] in {"queued", "running"}:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "person-of-tea" in shops.call("GET", where, shops.keys["tea"]["govern"]).text
    strangers = [shops.keys["shoes"]["all"], *(shops.keys["tea"][s] for s in ("write", "serve", "manage"))]
    for key in strangers:
        for method, path in (("GET", where), ("DELETE", where), ("GET", f"{where}/files/out")):
            answer = shops.call(method, path, key)
            assert answer.status_code == 404
            assert "person-of-tea" not in answer.text
        assert shops.call("GET", "/v1/jobs", key).json() == []
    assert len(shops.call("GET", "/v1/jobs", shops.keys["tea"]["govern"]).json()) == 1


def test_a_key_in_the_address_is_refused(shops: Shops) -> None:
    key = shops.keys["tea"]["all"]
    body = {"user_id": "u"}
    plain = shops.call("POST", "/v1/recommend", None, json=body)
    for query in (
        f"key={key}",
        f"api_key={key}",
        f"a=b&{key}",
        f"k={key.replace('_', '%5F')}",
        f"key={'pk_' + '0' * 12 + '_' + 'a' * 43}",
    ):
        for sent in (key, None):
            answer = shops.call("POST", f"/v1/recommend?{query}", sent, json=body)
            assert (answer.status_code, answer.content) == (401, plain.content), query


def test_a_key_may_come_in_three_ways(shops: Shops) -> None:
    key = shops.keys["tea"]["write"]
    basic = base64.b64encode(f"{key}:".encode()).decode()
    for headers in (
        {"Authorization": f"Bearer {key}"},
        {"authorization": f"bearer  {key}"},
        {"Authorization": f"Basic {basic}"},
        {"X-Api-Key": key},
    ):
        assert shops.client.post("/v1/observe", json={"events": []}, headers=headers).status_code == 200
    for headers in ({"Authorization": f"Digest {key}"}, {"Authorization": "Basic *"}, {"Authorization": key}):
        assert shops.client.post("/v1/observe", json={"events": []}, headers=headers).status_code == 401


def test_what_needs_no_key(shops: Shops) -> None:
    assert shops.client.get("/healthz").json() == {"status": "ok"}
    assert shops.client.get("/readyz").json() == {"status": "ready", "degraded": True, "shops": 2}
    assert shops.client.get("/docs").status_code == 200
    assert shops.client.get("/openapi.json").status_code == 200


def test_a_revoked_key_is_out_at_once(shops: Shops) -> None:
    ring = Keyring(shops.paths["tea"], time.time_ns)
    key_id, secret = ring.create("leaked", ["serve"])
    assert shops.call("POST", "/v1/recommend", secret, json={"user_id": "u"}).status_code == 200
    ring.revoke(key_id)
    assert shops.call("POST", "/v1/recommend", secret, json={"user_id": "u"}).status_code == 401


def test_a_key_has_its_rate(shops: Shops) -> None:
    made = shops.call(
        "POST",
        "/v1/keys",
        shops.keys["tea"]["all"],
        json={"action": "create", "scopes": ["write", "serve"], "rate": 3},
    ).json()["secret"]
    answers = [shops.call("POST", "/v1/observe", made, json={"events": []}) for _ in range(8)]
    codes = [answer.status_code for answer in answers]
    assert codes[:3] == [200] * 3
    assert 429 in codes
    late = next(answer for answer in answers if answer.status_code == 429)
    assert late.headers["retry-after"] == "1"
    assert late.json()["code"] == "too_many_requests"
    body = {"user_id": "u"}
    assert shops.call("POST", "/v1/recommend", made, json=body).status_code == 200  # a bucket of its own
    codes = [shops.call("POST", f"/nowhere/{n}", made, json={}).status_code for n in range(8)]
    assert 429 in codes  # paths that lead nowhere share one
    assert (
        shops.call("POST", "/v1/observe", shops.keys["tea"]["write"], json={"events": []}).status_code == 200
    )


def test_a_refusal_of_an_operator_is_logged(shops: Shops) -> None:
    shops.call("POST", "/v1/erase_user", shops.keys["shoes"]["serve"], json={"user_id": "u"})
    entries = shops.call("POST", "/v1/access_log", shops.keys["shoes"]["govern"], json={}).json()["entries"]
    key_id = shops.keys["shoes"]["serve"].split("_")[1]
    assert ("erase_user", "forbidden", key_id) in {(e["operation"], e["outcome"], e["key"]) for e in entries}


def test_a_shop_without_keys_is_open_until_it_has_one(tmp_path: Path) -> None:
    engine = Engine.open(tmp_path / "shop")
    engine.init()
    with running_server(create_app(engine)) as url, httpx.Client(base_url=url) as client:
        assert client.post("/v1/status", json={}).status_code == 200
        key_id, _ = Keyring(tmp_path / "shop", time.time_ns).create("first", ["serve"])
        assert client.post("/v1/status", json={}).status_code == 401
        Keyring(tmp_path / "shop", time.time_ns).revoke(key_id)
        assert client.post("/v1/status", json={}).status_code == 401


def test_a_locked_server_without_keys_answers_nobody(tmp_path: Path) -> None:
    engine = Engine.open(tmp_path / "shop")
    engine.init()
    with running_server(create_app(engine, locked=True)) as url:
        assert httpx.post(url + "/v1/status", json={}).status_code == 401


def test_requests_of_two_shops_at_once_do_not_mix(shops: Shops) -> None:
    wrong: list[str] = []

    def ask(name: str) -> None:
        with httpx.Client(base_url=shops.client.base_url, timeout=30) as client:
            for _ in range(25):
                headers = {"Authorization": f"Bearer {shops.keys[name]['all']}"}
                told = client.post("/v1/status", json={}, headers=headers).json()["name"]
                if told != name:
                    wrong.append(told)

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("tea", "shoes") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
