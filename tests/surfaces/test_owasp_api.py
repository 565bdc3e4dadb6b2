"""The OWASP API Security Top 10 (2023), one test for each, on a server of two shops with keys."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from penchant.engine import OPERATIONS, Engine
from penchant.surfaces import create_app, openapi
from penchant.surfaces._body import Limits
from penchant.testing import running_server
from tests.surfaces.tenants import tenants

ROOT = Path(__file__).resolve().parents[2] / "penchant"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
    engines = tenants(tmp_path_factory.mktemp("owasp"))
    keys = {
        f"{name}/{scope}": engine.keys(action="create", scopes=[scope]).secret or ""
        for name, engine in engines.items()
        for scope in ("write", "serve", "manage", "govern")
    }
    limits = Limits(body=20_000, seconds=1.0)
    with (
        running_server(create_app(list(engines.values()), limits=limits)) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield client, keys


def call(served: Any, key: str, name: str, **fields: Any) -> httpx.Response:
    client, keys = served
    return client.post(f"/v1/{name}", json=fields, headers={"Authorization": f"Bearer {keys[key]}"})


def result_of(served: Any, key: str, answer: httpx.Response) -> dict[str, Any]:
    client, keys = served
    headers = {"Authorization": f"Bearer {keys[key]}"}
    deadline = time.monotonic() + 20
    while True:
        status = client.get(answer.headers["location"], headers=headers).json()
        if status["state"] not in {"queued", "running"}:
            return status  # type: ignore[no-any-return]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_api1_broken_object_level_authorization(served: Any) -> None:
    """A key reaches the people, items and jobs of its own shop alone, whatever ids it names."""
    own = result_of(served, "tea/govern", call(served, "tea/govern", "export_user", user_id="of-tea"))
    other = result_of(served, "shoes/govern", call(served, "shoes/govern", "export_user", user_id="of-tea"))
    assert len(own["result"]["events"]) == 1
    assert other["result"]["events"] == []
    client, keys = served
    headers = {"Authorization": f"Bearer {keys['shoes/govern']}"}
    assert client.get(f"/v1/jobs/{own['id']}", headers=headers).status_code == 404


def test_api2_broken_authentication(served: Any) -> None:
    """No key, a wrong one and one cut short are the same; nothing tells how near one was."""
    client, keys = served
    good = keys["tea/serve"]
    answers = []
    for token in (None, "x", good[:-1], good[:-1] + ("A" if good[-1] != "A" else "B"), good.upper()):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        answers.append(client.post("/v1/recommend", json={"user_id": "u"}, headers=headers))
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1


def test_api3_broken_object_property_level_authorization(served: Any) -> None:
    """Fields nobody asked for are refused, not taken (mass assignment), and answers hold their type alone."""
    for name, fields in {
        "recommend": {"user_id": "u", "is_admin": True},
        "keys": {"action": "create", "scopes": ["govern"], "digest": "0" * 64},
        "consent": {"user_id": "u", "ts": 5},
    }.items():
        answer = call(served, f"tea/{OPERATIONS[name].scope}", name, **fields)
        assert answer.status_code == 422
        assert sorted(fields)[-1] in answer.text or "is_admin" in answer.text or "digest" in answer.text
    listed = call(served, "tea/govern", "keys").text
    assert "digest" not in listed
    assert served[1]["tea/serve"] not in listed


def test_api4_unrestricted_resource_consumption(served: Any) -> None:
    """Sizes, counts and rates have limits, which are told."""
    assert call(served, "tea/serve", "recommend", user_id="u", k=10**9).status_code == 422
    assert call(served, "tea/serve", "recommend", user_id="u", deny=["x" * 100] * 500).status_code == 413
    made = call(served, "tea/govern", "keys", action="create", scopes=["govern"], rate=1).json()["secret"]
    headers = {"Authorization": f"Bearer {made}"}
    codes = [served[0].post("/v1/status", json={}, headers=headers).status_code for _ in range(4)]
    assert 429 in codes
    described = openapi()["components"]["schemas"]["RecommendRequest"]["properties"]["k"]
    assert "'maximum': 1000" in str(described)


def test_api5_broken_function_level_authorization(served: Any) -> None:
    """A key of a page calls nothing that manages or governs; every operation asks for its scope."""
    for name, operation in OPERATIONS.items():
        for scope in {"write", "serve", "manage", "govern"} - {operation.scope}:
            assert call(served, f"tea/{scope}", name).status_code == 403, (name, scope)


def test_api6_unrestricted_access_to_sensitive_business_flows(tmp_path: Path) -> None:
    """One person with very many events does not decide what others see: what is learned leaves bots out."""
    from penchant.data import Settings
    from penchant.engine._protocol import take_snapshot

    limit = Settings().bot_events_per_day
    start = 1_718_000_000_000_000
    with Engine.open(tmp_path / "shop") as engine:
        engine.init()
        flood = [
            {"kind": "view", "user_id": "bot", "item_id": "pushed", "event_id": f"b{n}", "ts": start + n}
            for n in range(limit + 1)
        ]
        for first in range(0, len(flood), 5000):
            engine.observe(events=flood[first : first + 5000])
        people = [
            {"kind": "view", "user_id": f"u{n}", "item_id": "liked", "event_id": f"p{n}", "ts": start + n}
            for n in range(5)
        ]
        engine.observe(events=people)
        snapshot = take_snapshot(engine.shop, engine.progress)
        assert list(snapshot.users.ids) == [f"u{n}" for n in range(5)]


def test_api7_server_side_request_forgery(served: Any) -> None:
    """Nothing that is sent makes the server fetch an address or open a file of its own."""
    for name, fields in {
        "ingest": {"files": ["http://169.254.169.254/latest/meta-data"]},
        "catalog": {"files": ["/etc/passwd"]},
        "recommend": {"users": "file:///etc/passwd", "out": "x"},
        "drill": {"file": "/etc/shadow"},
    }.items():
        answer = call(served, f"tea/{OPERATIONS[name].scope}", name, **fields)
        assert answer.status_code == 422
        assert "file of the server" in answer.text
    fetching = {
        path.name
        for path in ROOT.rglob("*.py")
        if any(word in path.read_text("utf-8") for word in ("httpx.", "urlopen", "requests.get"))
    }
    assert fetching <= {"_chat.py", "_remote.py", "_webhooks.py"}, (
        "only these speak to other machines, to addresses of the shop"
    )


def test_api8_security_misconfiguration(served: Any) -> None:
    """Safe headers everywhere, no other site lets a browser in, no trace in an error, no debug pages."""
    client, keys = served
    answer = client.get("/nothing/at/all")
    assert answer.status_code == 401  # not even what is there is told
    for answer in (client.get("/docs"), client.get("/healthz"), call(served, "tea/serve", "recommend")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
    for method in ("TRACE", "PUT", "PATCH", "OPTIONS"):
        headers = {"Authorization": f"Bearer {keys['tea/serve']}"}
        assert client.request(method, "/v1/recommend", headers=headers).status_code == 405


def test_api9_improper_inventory_management(served: Any) -> None:
    """Every route that answers is in the document, and every one in the document answers."""
    client, keys = served
    described = client.get("/openapi.json").json()["paths"]
    for path, item in described.items():
        for verb in item:
            answer = client.request(verb, path.replace("{job_id}", "x").replace("{field}", "y"), content=b"")
            assert answer.status_code in {200, 401}, (verb, path)
    assert {f"/v1/{name}" for name in OPERATIONS} <= described.keys()
    for unknown in ("/v1/", "/v2/recommend", "/admin", "/debug", "/v1/recommend/", "/.env", "/metrics/"):
        headers = {"Authorization": f"Bearer {keys['tea/govern']}"}
        assert client.post(unknown, json={}, headers=headers, follow_redirects=False).status_code in {
            307,
            404,
            405,
        }


def test_api10_unsafe_consumption_of_apis(served: Any) -> None:
    """Answers of another server are read as strictly as requests: what does not fit is an error, not a guess."""
    from penchant.core.errors import ShopError
    from penchant.engine import HttpRemote, StatusRequest

    def odd(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"name": "x", "path": 5, "more": "<script>"})

    remote = HttpRemote("http://shop.example", transport=httpx.MockTransport(odd))
    with pytest.raises(ShopError, match="not understood"):
        remote.call(OPERATIONS["status"], StatusRequest())
