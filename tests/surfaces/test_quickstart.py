"""The quickstart does what it says: its files are ingested and its commands run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from penchant.surfaces import cli

ROOT = Path(__file__).resolve().parents[2]
TOO_FEW = ("train", "evaluate")  # three lines of events are too few, as the page says


def test_the_quickstart_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    items, events = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    Path("items.csv").write_text(items, "utf-8")
    Path("events.csv").write_text(events, "utf-8")
    commands = [line for line in page.splitlines() if line.startswith("penchant ")]
    assert len(commands) >= 12
    for command in commands:
        with pytest.raises(SystemExit) as stopped:
            cli.main(shlex.split(command)[1:])
        told = capsys.readouterr()
        if shlex.split(command)[1] in TOO_FEW:
            assert stopped.value.code == 5
            assert "too few people" in told.err
        else:
            assert stopped.value.code == 0, (command, told.err)
            assert "refused, " not in told.out


def test_both_readmes_and_the_quickstart_show_the_same_commands() -> None:
    def commands(name: str) -> set[str]:
        lines = (ROOT / name).read_text("utf-8").splitlines()
        rows = [" ".join(line.split()) for line in lines if line.startswith(("penchant ", "pip ", "make "))]
        return {row.partition(" #")[0].strip().replace("CNY", "EUR") for row in rows}

    assert commands("README.md") == commands("README.zh-CN.md")
    assert {row for row in commands("README.md") if row.startswith(("penchant", "pip"))} <= commands(
        "docs/quickstart.md"
    )
