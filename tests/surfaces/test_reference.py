"""The reference pages: up to date, complete, and buildable."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from penchant.core import CATALOG_SCHEMA, Event, EventKind
from penchant.engine import OPERATIONS, ShopConfig, alternatives, built_in_settings, error_classes
from penchant.surfaces import reference_pages
from penchant.surfaces._fields import explained, fields_of, structs_in

ROOT = Path(__file__).resolve().parents[2]
TABLES = (
    "store",
    "data",
    "serve",
    "train",
    "content",
    "collect",
    "kafka",
    "explore",
    "interests",
    "planner",
    "rerank",
    "privacy",
)


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference_pages()


def test_committed_pages_are_what_the_code_says(build: ModuleType) -> None:
    assert build.stale() == [], "run `python docs/build.py --pages`"


def test_a_stale_page_is_noticed(build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "REFERENCE", tmp_path)
    build.write()
    assert build.stale() == []
    (tmp_path / "errors.md").write_text("old")
    (tmp_path / "gone.md").write_text("of an earlier version")
    (tmp_path / "events.md").unlink()
    assert build.stale() == ["errors.md", "events.md", "gone.md"]
    assert build.main(["--check"]) == 1
    assert build.main(["--pages"]) == 0
    assert build.stale() == []
    assert build.main(["--check"]) == 0


def test_operations_are_complete(pages: dict[str, str]) -> None:
    operations, types = pages["operations.md"], pages["types.md"]
    for operation in OPERATIONS.values():
        _, _, section = operations.partition(f"\n### {operation.name}\n")
        section = section.partition("\n### ")[0]
        assert operation.summary.replace("``", "`") in section
        for field in fields_of(operation.request):
            assert f"| `{field.name}` |" in section
        for way in (f"penchant {operation.name.replace('_', '-')}", f"engine.{operation.name}(", "curl "):
            assert way in section
        for struct in structs_in(operation.response):
            if struct is not Event:
                assert f"\n## {struct.__name__}\n" in types
        assert len(alternatives(operation.response)) == section.partition("Gives ")[2].partition(".\n")[
            0
        ].count("](")


def test_every_request_field_is_described() -> None:
    missing = [
        f"{operation.name}.{field.name}"
        for operation in OPERATIONS.values()
        for field in fields_of(operation.request)
        if not field.description
    ]
    assert missing == []


def test_events_catalogue_settings_and_errors_are_complete(pages: dict[str, str]) -> None:
    for kind in EventKind:
        assert f"| `{kind.value}` | {kind.code} |" in pages["events.md"]
    for field in fields_of(Event):
        assert f"| `{field.name}` |" in pages["events.md"]
    for name in CATALOG_SCHEMA.names:
        assert f"| `{name}` |" in pages["catalogue.md"]
    for struct in structs_in(ShopConfig):
        tables = {*TABLES, "mapping", "scenarios", "webhooks"} if struct is ShopConfig else set()
        for field in fields_of(struct):
            assert f"| `{field.name}` |" in pages["settings.md"] or field.name in tables, field.name
    for name in TABLES:
        assert f"## [{name}]" in pages["settings.md"]
    assert "## [[mapping]]" in pages["settings.md"]
    for kind, settings in built_in_settings().items():
        section = pages["settings.md"].partition(f"\n### [train.settings.{kind}]\n")[2].partition("\n##")[0]
        for name in settings.__struct_fields__:
            assert f"| `{name}` |" in section, (kind, name)
    for code, kind in error_classes().items():
        assert f"| `{code}` | `{kind.__name__}` | {kind.status} | {kind.exit_code} |" in pages["errors.md"]


def test_comments_describe_where_nothing_else_does() -> None:
    described = {field.name: field.description for field in explained(_settings())}
    assert described["negative_quantity"].startswith("what a purchase of")


def _settings() -> type[msgspec.Struct]:
    (field,) = [field for field in msgspec.structs.fields(ShopConfig) if field.name == "data"]
    return field.type  # type: ignore[no-any-return]


@pytest.mark.slow
def test_the_site_builds_without_a_warning() -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed (extra: docs)")
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "build.py")], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (ROOT / "build" / "site" / "reference" / "operations.html").is_file()
