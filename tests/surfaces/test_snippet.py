"""The script for shop pages, run by a real browser on the sample page; skipped loudly where there is none."""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from penchant.engine import Engine
from penchant.surfaces import create_app
from penchant.surfaces._snippet import snippet
from penchant.testing import running_server

PAGE = Path(__file__).parents[2] / "examples" / "shop-page" / "index.html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--virtual-time-budget=8000",
    "--dump-dom",
]
USE = """
penchant.consent(true);
document.querySelector("[data-penchant=search] input").value = "green tea";
document.querySelector("form").addEventListener("submit", (e) => e.preventDefault());
document.querySelector("form button").click();
setTimeout(() => {
  document.querySelector("[data-item=cup] a").click();
  document.querySelector("main button").click();
  const more = document.createElement("main");
  Object.assign(more.dataset, {penchant: "view", item: "cup"});
  document.body.append(more);
  setTimeout(() => penchant.identify("anna"), 500);
}, 500);
"""


def test_it_is_small_and_whole() -> None:
    assert len(snippet()) < 3000
    assert b"\n" not in snippet()
    assert b"//" not in snippet()


def test_it_is_served_to_any_page(tmp_path: Path) -> None:
    engine = Engine.open(tmp_path / "shop")
    engine.init()
    with running_server(create_app(engine)) as url:
        answer = httpx.get(url + "/penchant.js")
        assert answer.content == snippet()
        assert answer.headers["content-type"].startswith("text/javascript")
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def pages(folder: Path) -> Iterator[str]:
    """Serve a folder as a shop would, at an origin of its own."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def visit(
    tmp_path: Path, script: str, *, before: str = "", tag: str = ""
) -> tuple[list[dict[str, Any]], str]:
    """Open the sample page in the browser, use it, and give back what the shop knows afterwards."""
    if CHROMIUM is None:
        pytest.skip("the script for pages is NOT TESTED in a browser: there is no chromium")
    site = tmp_path / "site"
    site.mkdir()
    engine = Engine.open(tmp_path / "shop")
    engine.init(name="tea", currency="EUR")
    key = engine.keys(action="create", scopes=["write"]).secret
    with pages(site) as origin:
        settings = tmp_path / "shop" / "shop.toml"
        settings.write_text(settings.read_text().replace("origins = []", f'origins = ["{origin}"]'))
        engine.close()
        with running_server(create_app(Engine.open(tmp_path / "shop"))) as url:
            page = PAGE.read_text().replace("http://localhost:8000", url).replace("WRITE_KEY", str(key))
            page = page.replace("async src", f"{tag} src").replace("RECOMMENDATION_ID", "r-17")
            page = page.replace("<script", f"<script>{before}</script><script", 1)
            (site / "index.html").write_text(page + f"<script>{script}</script>")
            profile = f"--user-data-dir={tmp_path / 'profile'}"
            ran = subprocess.run(
                [CHROMIUM, *FLAGS, profile, f"{origin}/index.html"],
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
        assert "For you" in ran.stdout, ran.stderr
    with Engine.open(tmp_path / "shop") as engine:
        return engine.shop.store.scan().to_pylist(), ran.stderr


def test_a_visit_becomes_events(tmp_path: Path) -> None:
    rows, _ = visit(tmp_path, USE)
    told = {(row["kind"], row["item_id"] or row["query"], row["recommendation_id"]) for row in rows}
    assert told == {
        ("view", "green-tea", None),
        ("impression", "tea-pot", "r-17"),
        ("impression", "cup", "r-17"),
        ("search", "green tea", None),
        ("click", "cup", "r-17"),
        ("cart_add", "green-tea", None),
        ("view", "cup", "r-17"),
    }
    assert len(rows) == len(told)
    assert {row["subject"] for row in rows} == {"anna"}, "what came before signing in is joined"
    assert {row["consent"] for row in rows} == {"personalise,analytics"}
    shown = {row["item_id"]: row["position"] for row in rows if row["kind"] == "impression"}
    assert shown == {"tea-pot": 0, "cup": 1}
    (cart,) = [row for row in rows if row["kind"] == "cart_add"]
    assert (cart["value"], cart["currency"]) == (450.0, "EUR")


@pytest.mark.parametrize(
    ("before", "script"),
    [
        ("", USE.replace("penchant.consent(true);", "")),
        ("", USE.replace("penchant.consent(true);", "penchant.consent(true); penchant.consent(false);")),
        ("Object.defineProperty(navigator, 'globalPrivacyControl', {value: true});", USE),
    ],
    ids=["not asked", "refused", "global privacy control"],
)
def test_without_consent_nothing_is_sent_or_kept(tmp_path: Path, before: str, script: str) -> None:
    rows, _ = visit(tmp_path, script + "document.body.append(JSON.stringify(localStorage))", before=before)
    assert rows == []


def test_calls_before_the_script_has_loaded_are_made_up_for(tmp_path: Path) -> None:
    viewed = "['track', 'Product Viewed', {product_id: 'pot'}]"
    early = f"window.penchant = [['consent', true], ['identify', 'anna'], {viewed}];"
    rows, _ = visit(tmp_path, "", before=early, tag="async")
    assert {row["item_id"] for row in rows} >= {"pot", "green-tea"}
    assert {row["subject"] for row in rows} == {"anna"}
