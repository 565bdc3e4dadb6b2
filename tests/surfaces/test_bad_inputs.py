"""Bad inputs by number: each is survived, told, and leaves nothing behind.

``test_every_number_is_told`` keeps the list whole: numbers that are tried where their fixtures live stand in
``ELSEWHERE``, and those of things this server does not have in ``NOT_HERE``, with what must stay absent.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from penchant.core.errors import ArtifactError, PenchantError, ShopError
from penchant.engine import OPERATIONS, Engine
from penchant.surfaces import create_app
from penchant.surfaces._body import Limits
from penchant.testing import running_server
from tests.surfaces.tenants import tenants

NOW = 1_718_000_000_000_000
YEAR = 365 * 86_400_000_000
TESTS = Path(__file__).resolve().parents[1]
PACKAGE = TESTS.parent / "penchant"
ELSEWHERE = {
    23: ("surfaces/test_owasp_api.py", "test_api6_unrestricted_access_to_sensitive_business_flows"),
    25: ("data/test_doctor.py", "test_25_a_burst_of_reviews_by_accounts_made_for_it"),
    31: ("models/test_content.py", "test_31_pictures_that_are_none_or_too_large"),
    55: ("engine/test_swap.py", "test_the_canary"),
    59: ("engine/test_backup.py", "test_damaged_and_wicked_backups_are_refused"),
}
NOT_HERE = {  # the word that would stand in the name or the summary of an operation that has it
    46: "voice",
    47: "chat",
    48: "chat",
    49: "chat",
    50: "chat",
    51: "chat",
    52: "chat",
    56: "epsilon",
}


def test_every_number_is_told() -> None:
    told = set()
    for name, value in globals().items():
        numbers = re.match(r"test((_\d\d)+)_", name) if callable(value) else None
        told |= {int(number) for number in numbers[1][1:].split("_")} if numbers else set()
    assert sorted(told | ELSEWHERE.keys() | NOT_HERE.keys()) == list(range(1, 60))
    for number, (file, name) in ELSEWHERE.items():
        assert f"def {name}(" in (TESTS / file).read_text("utf-8"), number
    words = " ".join(f"{row.name} {row.summary} {row.description}".lower() for row in OPERATIONS.values())
    for number, word in NOT_HERE.items():
        assert word not in words, f"bad input {number} applies now"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "items.csv").write_text(
        "id,title,category,price\ntea,Tea,Drinks,5.00\nbare,,,\nxss,<img src=x onerror=alert(1)>,Drinks,1.00\n"
    )
    with Engine.open(folder / "shop") as engine:
        engine.init(name="s")
        engine.catalog(files=[str(folder / "items.csv")])
        yield engine


@pytest.fixture(scope="module")
def client(engine: Engine) -> Iterator[httpx.Client]:
    app = create_app(engine, limits=Limits(seconds=1.0))
    with running_server(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def view(number: Any = 1, **more: Any) -> dict[str, Any]:
    event = {"kind": "view", "user_id": "u1", "item_id": "tea", "event_id": f"e{number}", "ts": NOW}
    return {**event, **more}


def told(client: httpx.Client, *events: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/observe", json={"events": list(events)})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]  # type: ignore[no-any-return]


def raw(client: httpx.Client, body: bytes, name: str = "observe") -> httpx.Response:
    return client.post(f"/v1/{name}", content=body, headers={"Content-Type": "application/json"})


def refused(client: httpx.Client, event: Any) -> None:
    (result,) = told(client, event)
    assert result["status"] == "refused", result
    assert result["error"]


def count(client: httpx.Client) -> int:
    return int(client.post("/v1/status", json={}).json()["events"])


# -- events ---------------------------------------------------------------------------------------------


def test_01_an_empty_batch(client: httpx.Client) -> None:
    before = count(client)
    assert client.post("/v1/observe", json={"events": []}).json() == {"results": [], "stored": 0}
    assert count(client) == before


def test_02_a_batch_too_large(client: httpx.Client) -> None:
    assert raw(client, b'{"events": [' + b" " * 5_100_000 + b"]}").status_code == 413
    for name, field, more in (("observe", "events", {}), ("collect", "messages", {"form": "segment"})):
        answer = client.post(f"/v1/{name}", json={field: [1] * 10_001, **more})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("body", [b"hello", b'{"events": [{"kind": "vi', b"\x00", b"'events'"])
def test_03_not_json(client: httpx.Client, body: bytes) -> None:
    answer = raw(client, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


@pytest.mark.parametrize("piece", [b"[", b'{"a":'])
def test_04_json_ten_thousand_deep(client: httpx.Client, piece: bytes) -> None:
    body = b'{"events": [{"kind": "view", "user_id": "u", "item_id": "i", "props": {"a": ' + piece * 10_000
    assert raw(client, body).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b'{"k": 1, "k": 2, "user_id": "u"}',
        b'{"k" : 1, "k"\t: 2, "user_id" : "u"}',
        b'{"user_id": "u\\":", "user_id": "v", "k": 2}',
        b'{"user_id": ":x", "k": 1, "k": 1}',
        b'{"user_id": "u", "deny": [], "d\\u0065ny": []}',
    ],
)
def test_05_a_key_twice(client: httpx.Client, body: bytes) -> None:
    answer = raw(client, body, "recommend")
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert "twice" in answer.json()["title"]


def test_05_what_only_looks_like_a_key_twice(client: httpx.Client) -> None:
    event = view("05", user_id='":', props={'a":': '"k":1', "b": {'a":': ":", "b": []}})
    assert told(client, event)[0]["status"] == "stored"
    nested = b'{"events": [{"kind" : "view", "user_id": "u5", "item_id": "tea", "props": {"kind": 1}}]}'
    assert raw(client, nested).json()["stored"] == 1
    nested = b'{"events": [{"kind": "view", "user_id": "u5", "item_id": "tea", "props": {"a": 1, "a": 2}}]}'
    assert raw(client, nested).status_code == 400


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400"])
def test_06_numbers_that_are_none(client: httpx.Client, number: bytes) -> None:
    body = b'{"events": [{"kind": "view", "user_id": "u", "item_id": "i", "value": ' + number + b"}]}"
    answer = raw(client, body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


def test_07_integers_beyond_64_bits(client: httpx.Client) -> None:
    refused(client, view(7, ts=2**70))
    assert raw(client, b'{"k": 1' + b"0" * 30 + b"}", "recommend").status_code == 422
    message = b'{"event": "Product Viewed", "userId": "u", "properties": {"n": 18446744073709551616}}'
    assert raw(client, message, "track").status_code == 422


def test_08_odd_prices(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,title,price\nneg,Negative,-1\nfree,Free,0\n")
    report = engine.catalog(files=[str(tmp_path / "items.csv")])
    prices = dict(zip(*(engine.shop.store.catalog()[n].to_pylist() for n in ("id", "price")), strict=True))
    assert prices.get("free") == 0
    assert prices.get("neg") is None or prices["neg"] >= 0, report


def test_09_nobody_or_nothing(client: httpx.Client) -> None:
    refused(client, {"kind": "view", "item_id": "tea"})
    refused(client, {"kind": "purchase", "user_id": "u1"})


@pytest.mark.parametrize("person", ["", " ", "\t\n", "x" * 10_000])
def test_10_ids_that_are_none(client: httpx.Client, person: str) -> None:
    refused(client, view(10, user_id=person))
    assert client.post("/v1/recommend", json={"user_id": "x" * 10_000}).status_code == 422


def test_11_ids_with_odd_letters_are_one_person(client: httpx.Client) -> None:
    composed, apart = "caf\u00e9-\U0001f375", unicodedata.normalize("NFD", "caf\u00e9-\U0001f375")
    assert composed != apart
    statuses = [
        told(client, view(f"11{n}", user_id=name))[0]["status"] for n, name in enumerate((composed, apart))
    ]
    assert statuses == ["stored", "stored"]
    for name in (composed, apart, f" {composed} "):
        assert client.post("/v1/profile", json={"user_id": name}).json()["events"] == 2
    for odd in ("a\x00b", "a\nb", "a\u200fb", "\u202ea"):
        for field in ("user_id", "anonymous_id", "item_id", "session_id", "event_id", "recommendation_id"):
            refused(client, view("11x", **{field: odd}))


@pytest.mark.parametrize("body", [b'{"user_id": "\xff\xfe"}', b'{"user_id": "\\ud800"}'])
def test_12_text_that_is_no_text(client: httpx.Client, body: bytes) -> None:
    answer = raw(client, body, "recommend")
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


def test_13_the_same_event_again(client: httpx.Client) -> None:
    assert [told(client, view(13))[0]["status"] for _ in range(2)] == ["stored", "duplicate"]


def test_14_the_same_id_with_another_content(client: httpx.Client) -> None:
    assert told(client, view(14))[0]["status"] == "stored"
    (result,) = told(client, view(14, item_id="bare"))
    assert result["status"] == "conflict"
    assert "new id" in result["error"]
    letters = client.post("/v1/dead_letters", json={"limit": 1}).json()["letters"]
    assert letters[0]["event"]["item_id"] == "bare"
    single = {
        "event": "Product Viewed",
        "userId": "u1",
        "messageId": "14s",
        "properties": {"product_id": "tea"},
    }
    assert client.post("/v1/track", json=single).status_code == 200
    single["properties"] = {"product_id": "bare"}
    assert client.post("/v1/track", json=single).status_code == 409


@pytest.mark.parametrize("ts", [0, -1, NOW + 100 * YEAR, "yesterday", None.__class__.__name__])
def test_15_times_that_cannot_be(client: httpx.Client, ts: Any) -> None:
    refused(client, view(15, ts=ts))


@pytest.mark.parametrize(
    "when",
    ["1970-01-01T00:00:00Z", "2038-01-19T03:14:08Z", "2016-12-31T23:59:60Z", "2090-01-01T00:00:00Z", "noon"],
)
def test_15_dates_that_cannot_be(client: httpx.Client, when: str) -> None:
    event = view(15)
    del event["ts"]
    refused(client, {**event, "timestamp": when})


def test_15_a_time_without_a_zone_is_in_utc(client: httpx.Client, engine: Engine) -> None:
    event = {"kind": "view", "user_id": "no zone", "item_id": "tea", "timestamp": "2024-06-10T06:13:20"}
    assert told(client, event)[0]["status"] == "stored"
    assert engine.shop.store.history("no zone").ts.tolist() == [NOW]


def test_16_17_late_and_out_of_order(client: httpx.Client, engine: Engine) -> None:
    late = view(16, user_id="late", ts=NOW - YEAR // 4)
    first, second = (
        view("17b", user_id="late", ts=NOW, kind="purchase"),
        view("17a", user_id="late", ts=NOW - 10**9),
    )
    assert [r["status"] for r in told(client, first, second, late)] == ["stored"] * 3
    history = engine.shop.store.history("late")
    assert list(history.ts) == sorted(history.ts)


def test_18_an_unknown_kind(client: httpx.Client) -> None:
    def counted() -> float:
        (line,) = re.findall(r'penchant_events_total{status="refused"} (.*)', client.get("/metrics").text)
        return float(line)

    refused(client, view(18, kind="dance"))
    before = counted()
    refused(client, view(18, kind="dance"))
    assert counted() == before + 1


def test_19_an_unknown_item(client: httpx.Client, engine: Engine) -> None:
    assert told(client, view(19, item_id="not-in-the-catalogue"))[0]["status"] == "stored"
    answer = client.post("/v1/recommend", json={"user_id": "u1", "k": 100})
    assert "not-in-the-catalogue" not in answer.text
    assert "orphans" in {finding.code for finding in engine.doctor().findings}


def test_20_unknown_fields(client: httpx.Client) -> None:
    refused(client, view(20, colour="red"))
    assert told(client, view("20p", props={"colour": "red"}))[0]["status"] == "stored"


def test_21_a_currency_that_is_none(client: httpx.Client) -> None:
    for odd in ("euro", "eur", "", "E1R", 978):
        refused(client, view(21, kind="purchase", value=500, currency=odd))


def test_22_odd_quantities(client: httpx.Client) -> None:
    refused(client, view(22, kind="purchase", quantity=0))
    (result,) = told(client, view("22r", kind="purchase", quantity=-3))
    assert result["status"] == "stored"  # a return
    refused(client, view("22v", quantity=-3))  # of a view there is none
    (result,) = told(client, view("22h", kind="purchase", quantity=2.5))
    assert result["status"] == "stored"  # two and a half kilograms
    refused(client, view("22t", kind="purchase", quantity="3"))


def test_24_a_leaked_key_of_events_changes_no_price(tmp_path: Path) -> None:
    shop = Engine.open(tmp_path / "shop")
    shop.init()
    key = shop.keys(action="create", scopes=["write"]).secret
    with running_server(create_app(shop)) as url:
        headers = {"Authorization": f"Bearer {key}"}
        files = {"files": ("items.csv", b"id,price\ntea,0.01\n")}
        assert httpx.post(url + "/v1/catalog", files=files, headers=headers).status_code == 403


def test_26_an_event_of_an_erased_person(client: httpx.Client, engine: Engine) -> None:
    told(client, view(26, user_id="gone"))
    engine.erase_user(user_id="gone")
    assert told(client, view("26b", user_id="gone"))[0]["status"] == "erased"


def test_27_an_event_without_consent(client: httpx.Client) -> None:
    before = count(client)
    assert told(client, view(27, user_id="no", consent=[]))[0]["status"] == "withheld"
    refused(client, view("27b", consent=["everything"]))
    assert count(client) == before


# -- catalogue ------------------------------------------------------------------------------------------


def test_28_an_item_without_title_price_or_category(client: httpx.Client) -> None:
    slate = client.post("/v1/recommend", json={"user_id": "new", "allow": ["bare"]}).json()
    assert [item["item_id"] for item in slate["items"]] == ["bare"]


def test_29_a_script_in_a_title_is_text(client: httpx.Client, engine: Engine, tmp_path: Path) -> None:
    answer = client.post("/v1/recommend", json={"user_id": "new", "allow": ["xss"]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    engine.doctor(html=str(tmp_path / "page.html"))
    assert "<img src=x" not in (tmp_path / "page.html").read_text()


def test_32_no_address_of_an_image_is_fetched(client: httpx.Client, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.3)
        address = f"http://127.0.0.1:{trap.getsockname()[1]}/x.png"
        body = f"id,title,image_link\nssrf,Trap,{address}\n".encode()
        answer = client.post("/v1/catalog", files={"files": ("items.csv", body)})
        where = answer.headers["location"]
        while client.get(where).json()["state"] in {"queued", "running"}:
            time.sleep(0.02)
        with pytest.raises(TimeoutError):
            trap.accept()


def test_33_a_text_of_a_million_letters(client: httpx.Client) -> None:
    refused(client, view(33, kind="review", text="x" * 1_000_000))


def test_30_categories_that_go_round_in_a_circle(
    client: httpx.Client, engine: Engine, tmp_path: Path
) -> None:
    """Categories are paths, each whole by itself: one that names itself again is only a long one."""
    rows = [
        "a,A,Tea > Herbs > Tea",
        "b,B,Herbs > Tea > Herbs",
        "c,C,Tea > Tea > Tea",
        "d,D,>",
        "e,E," + "x > " * 5000,
    ]
    (tmp_path / "items.csv").write_text("id,title,category\n" + "\n".join(rows) + "\n")
    assert engine.catalog(files=[str(tmp_path / "items.csv")]).accepted == 5
    answer = client.post("/v1/recommend", json={"user_id": "new", "allow": list("abcde"), "k": 5})
    assert sorted(item["item_id"] for item in answer.json()["items"]) == list("abcde")


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_33_a_product_that_is_told_in_a_million_letters(engine: Engine, tmp_path: Path, form: str) -> None:
    text = "\u8336" * 1_000_000
    row = {"id": "novel", "title": "Novel", "category": "Books", "description": text}
    content = f"{','.join(row)}\n{','.join(row.values())}\n" if form == "csv" else json.dumps(row) + "\n"
    (tmp_path / f"items.{form}").write_text(content)
    report = engine.catalog(files=[str(tmp_path / f"items.{form}")])
    (kept,) = [row for row in engine.shop.store.catalog().to_pylist() if row["id"] == "novel"]
    assert 0 < len(kept["description"]) < 100_000
    assert "texts that were too long and were cut" in str(report.files[0].notes)


def test_34_an_item_twice(engine: Engine, tmp_path: Path) -> None:
    text = "id,title,price,currency\ntwice,First,1.00,EUR\ntwice,Last,2.00,USD\n"
    (tmp_path / "items.csv").write_text(text)
    report = engine.catalog(files=[str(tmp_path / "items.csv")])
    (row,) = [row for row in engine.shop.store.catalog().to_pylist() if row["id"] == "twice"]
    assert (row["title"], row["price"], row["currency"]) == ("Last", 200, "USD")
    assert [refusal.reason for refusal in report.files[0].refusals] == ["replaced"]


def test_35_an_item_that_is_gone(client: httpx.Client) -> None:
    def shown() -> str:
        body = {"user_id": "new", "allow": ["tea"], "seen": "allow"}
        return client.post("/v1/recommend", json=body).text

    def put(availability: str) -> None:
        body = f"id,title,category,price,availability\ntea,Tea,Drinks,5.00,{availability}\n".encode()
        where = client.post("/v1/catalog", files={"files": ("items.csv", body)}).headers["location"]
        while client.get(where).json()["state"] in {"queued", "running"}:
            time.sleep(0.02)

    assert '"item_id":"tea"' in shown()
    put("out_of_stock")
    deadline = time.monotonic() + 5
    while '"item_id":"tea"' in shown():
        assert time.monotonic() < deadline, "it is still recommended after five seconds"
        time.sleep(0.05)
    put("in_stock")


# -- questions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, -1, 10**9, 2.5, "3"])
def test_36_k_out_of_range(client: httpx.Client, k: Any) -> None:
    answer = client.post("/v1/recommend", json={"user_id": "u1", "k": k})
    assert answer.status_code == 422
    assert answer.json()["path"] == "$.k"


def test_37_an_unknown_person(client: httpx.Client) -> None:
    answer = client.post("/v1/recommend", json={"user_id": "never seen"})
    assert answer.status_code == 200
    assert answer.json()["items"]


def test_38_filters_that_nothing_meets(client: httpx.Client) -> None:
    slate = client.post("/v1/recommend", json={"user_id": "u1", "filters": ["price > 999999999"]}).json()
    assert slate["items"] == []
    assert slate["note"]


@pytest.mark.parametrize(
    "text", ["' OR 1=1 --", "*)(uid=*", "{{7*7}}", "${jndi:ldap://x}", "; rm -rf /", "%s%n"]
)
def test_39_injections_are_text(client: httpx.Client, text: str) -> None:
    assert told(client, view(f"39{text}", user_id=text, item_id=text))[0]["status"] == "stored"
    profile = client.post("/v1/profile", json={"user_id": text}).json()
    assert (profile["subject"], profile["events"]) == (text, 1)
    assert client.post("/v1/recommend", json={"user_id": "u1", "filters": [text]}).status_code == 422


@pytest.fixture(scope="module")
def two_shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
    """A server of two shops with a key each; ``ann`` is known to the first."""
    engines = tenants(tmp_path_factory.mktemp("two"))
    keys = {
        name: engine.keys(action="create", scopes=["serve", "write"]).secret or ""
        for name, engine in engines.items()
    }
    with (
        running_server(create_app(list(engines.values()))) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield client, keys


def test_40_a_person_of_another_shop(two_shops: Any) -> None:
    """Asked for by another shop's key they are nobody, told apart from a made-up person by nothing."""
    client, keys = two_shops
    for name in ("recommend", "profile", "interests"):
        answers = []
        for person in ("of-tea", "of-nobody"):
            headers = {"Authorization": f"Bearer {keys['shoes']}"}
            answer = client.post(f"/v1/{name}", json={"user_id": person}, headers=headers)
            told = answer.text.replace(person, "")
            told = re.sub(
                r'"(recommendation_id|ts|seed|cursor|subject|item_id|score|odds|explored|joint_odds)":'
                r'("[^"]*"|[^,}]*)',
                "",
                told,
            )
            answers.append((answer.status_code, told))
            assert "item-tea" not in answer.text
        assert answers[0] == answers[1]


def test_41_keys_that_open_nothing(two_shops: Any) -> None:
    """No key, a wrong one, one of no shop, one in the address: one answer for all."""
    client, keys = two_shops
    ask = {"user_id": "of-tea"}
    wrong = [
        "x",
        keys["tea"][:-1] + ("A" if keys["tea"][-1] != "A" else "B"),
        "pk_" + "0" * 12 + "_" + "a" * 43,
    ]
    answers = [client.post("/v1/recommend", json=ask)]
    answers += [
        client.post("/v1/recommend", json=ask, headers={"Authorization": f"Bearer {key}"}) for key in wrong
    ]
    answers += [client.post("/v1/recommend", json=ask, params={"key": keys["tea"]})]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1


def test_42_mass_assignment(client: httpx.Client) -> None:
    answer = client.post("/v1/recommend", json={"user_id": "u1", "is_admin": True})
    assert answer.status_code == 422
    assert "is_admin" in answer.text


def test_43_a_huge_header_and_a_slow_body(client: httpx.Client) -> None:
    address = urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 200_000 + b"\r\n\r\n")
        assert b" 431 " in line.recv(100)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as line:
        head = b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        line.sendall(head + b"Content-Length: 90\r\n\r\n{")
        assert b" 408 " in line.recv(4096)


def test_44_a_cursor_that_is_forged_or_of_somebody_else(client: httpx.Client) -> None:
    cursor = client.post("/v1/recommend", json={"user_id": "u1", "k": 1}).json()["cursor"]
    forged = ("A" if cursor[0] != "A" else "B") + cursor[1:]
    for body in (
        {"user_id": "u1", "cursor": forged},
        {"user_id": "u2", "cursor": cursor},
        {"user_id": "u1", "cursor": "x"},
    ):
        answer = client.post("/v1/recommend", json={"k": 1, **body})
        assert answer.status_code == 400, answer.text
        assert "invalid_cursor" in answer.text
    assert client.post("/v1/recommend", json={"user_id": "u1", "k": 1, "cursor": cursor}).status_code == 200


@pytest.mark.parametrize("query", ["(a+)+$" * 20, "((((((((((" * 19 + "tea", "a" * 199, "%00" * 20])
def test_45_what_is_searched_for_takes_linear_time(client: httpx.Client, query: str) -> None:
    started = time.process_time()
    assert client.post("/v1/search", json={"query": query}).status_code == 200
    assert time.process_time() - started < 2
    for empty in ("", " ", "a" * 201, "a " * 21):
        assert client.post("/v1/search", json={"query": empty}).status_code == 422


def test_45_filters_take_linear_time(client: httpx.Client) -> None:
    started = time.perf_counter()
    text = "title = '" + "a" * 50_000 + "!"
    assert client.post("/v1/recommend", json={"user_id": "u1", "filters": [text]}).status_code in {200, 422}
    assert time.perf_counter() - started < 5


def test_a_gzip_bomb_is_no_more_than_bytes(client: httpx.Client) -> None:
    """What is sent compressed to an operation is not unpacked."""
    body = gzip.compress(b" " * 50_000_000)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = client.post("/v1/recommend", content=body, headers=headers)
    assert answer.status_code == 400


# -- models and settings --------------------------------------------------------------------------------


def test_53_54_a_file_of_a_model_that_is_none(engine: Engine, tmp_path: Path) -> None:
    from penchant.training import load_artifact

    with pytest.raises((ArtifactError, PenchantError)):
        load_artifact(engine.shop.artifacts, "0" * 16)
    folder = engine.shop.artifacts / ("f" * 16)
    folder.mkdir(parents=True)
    (folder / "artifact.json").write_bytes(b"\x80\x04\x95not json")
    with pytest.raises(ArtifactError):
        load_artifact(engine.shop.artifacts, "f" * 16)
    assert engine.recommend(user_id="u1").items  # what served goes on


def test_58_no_table_with_formulas_is_written() -> None:
    """Exports are JSON and Parquet, in which ``=HYPERLINK(...)`` is a text; a writer of CSV would have to mark it."""
    for path in PACKAGE.rglob("*.py"):
        assert not re.search(r"csv\.writer|DictWriter|write_csv|to_csv", path.read_text("utf-8")), path


def test_57_a_typo_in_the_settings(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "shop") as engine:
        engine.init()
    file = tmp_path / "shop" / "shop.toml"
    file.write_text(file.read_text().replace("out_of_stock", "out_of_stok"))
    with Engine.open(tmp_path / "shop") as engine, pytest.raises(ShopError, match="out_of_stok"):
        engine.status()
