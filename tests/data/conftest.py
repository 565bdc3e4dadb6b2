"""What the tests of this room share: a clock that stands still, and cleaning in one call."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penchant.data import CleaningReport, Mapping, Settings, clean_events, open_source, recognise

NOW = 1_730_000_000_000_000  # 2024-10-27
FIXTURES = Path(__file__).parent / "fixtures"
DATA = Path(os.environ.get("PENCHANT_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


@dataclass(frozen=True)
class Cleaned:
    """What came of cleaning one file."""

    events: list[dict[str, Any]]  # without what is null
    refused: list[dict[str, Any]]
    report: CleaningReport


@pytest.fixture(scope="session")
def now() -> int:
    return NOW


@pytest.fixture(scope="session")
def fixtures() -> Path:
    return FIXTURES


@pytest.fixture(scope="session")
def clean() -> Callable[..., Cleaned]:
    def run(
        path: Path, mappings: tuple[Mapping, ...] = (), settings: Settings | None = None, now: int = NOW
    ) -> Cleaned:
        source = open_source(path)
        settings = settings or Settings()
        stream = clean_events(source, recognise(source, mappings, settings=settings), settings, now)
        batches = list(stream.accepted())
        events = pa.Table.from_batches(batches).to_pylist() if batches else []
        refused = [row for batch in stream.refused() for row in batch.to_pylist()]
        bare = [{k: v for k, v in event.items() if v is not None} for event in events]
        return Cleaned(bare, refused, stream.report)

    return run


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    def find(name: str) -> Path:
        path = DATA / name
        if not path.exists():
            pytest.skip(f"the measuring set {name} is not in {DATA}; set PENCHANT_DATA")
        return path

    return find
