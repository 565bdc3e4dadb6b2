"""What a person at a terminal sees besides the answer: progress, and errors in two lines."""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from penchant.core.errors import PenchantError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_EVERY = 5.0  # seconds between two plain lines of one task


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get("PENCHANT_DEBUG", "") not in {"", "0"}


def say(text: str) -> None:
    """One line to standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class ConsoleProgress:
    """A ``core.Progress`` for people: bars on a terminal, a line now and then elsewhere, or nothing.

    Args:
        wanted: True for bars in any case, False for silence, None to decide by the terminal.
    """

    def __init__(self, wanted: bool | None) -> None:
        self.silent = wanted is False
        self.bars_wanted = bool(wanted) or (wanted is None and sys.stderr.isatty())
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._name: str | None = None
        self._told = 0.0
        self._started = 0.0

    def __call__(self, task: str, done: int, total: int | None, figures: Mapping[str, float]) -> None:
        """Take note of progress."""
        if self.silent:
            return
        if self.bars_wanted:
            self._bar(task, done, total, figures)
        else:
            self._line(task, done, total, figures)

    def __enter__(self) -> ConsoleProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bars as they are and give the terminal back."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _bar(self, task: str, done: int, total: int | None, figures: Mapping[str, float]) -> None:
        if self._bars is None:
            self._bars = _make_bars()
            self._bars.start()
        if task != self._name:
            self._finish_bar()
            self._task = self._bars.add_task(task, total=total, figures="")
            self._name = task
        assert self._task is not None
        self._bars.update(self._task, completed=done, total=total, figures=_figures(figures))

    def _finish_bar(self) -> None:
        """A task that gives way to another is over, whatever total it had announced."""
        if self._bars is not None and self._task is not None:
            completed = self._bars.tasks[-1].completed
            self._bars.update(self._task, total=completed or 1, completed=completed or 1)

    def _line(self, task: str, done: int, total: int | None, figures: Mapping[str, float]) -> None:
        moment = time.monotonic()
        if task != self._name:
            self._name, self._started = task, moment
        elif done != total and moment - self._told < _EVERY:
            return
        self._told = moment
        share = f"{done:,}" if total is None else f"{done:,} of {total:,}"
        words = [f"{task}: {share}", f"{moment - self._started:.0f} s", _figures(figures)]
        say("  ".join(word for word in words if word))


def _make_bars() -> Bars:
    from rich import progress as p
    from rich.console import Console

    return p.Progress(
        p.TextColumn("{task.description}"),
        p.BarColumn(bar_width=30),
        p.MofNCompleteColumn(),
        p.TimeElapsedColumn(),
        p.TextColumn("{task.fields[figures]}"),
        console=Console(stderr=True),
    )


def _figures(figures: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())


def show_error(error: PenchantError) -> None:
    """Tell an error: what was wrong with the value, the next step, and a proposal where there is one."""
    bare = PenchantError(error.message, value=error.value, path=error.path)
    say(f"error: {bare}")
    if error.hint:
        say(f"hint: {error.hint}")
    proposal = getattr(error, "proposal", None)
    if proposal is not None:
        say("\nA proposal: add it to shop.toml and correct it, or let --write-mapping write it there.\n")
        say(proposal.toml() if hasattr(proposal, "toml") else msgspec.toml.encode(proposal).decode())


def show_unexpected(error: BaseException, shop: Path | None, trace: Callable[[BaseException], str]) -> None:
    """Tell an error that nobody expected, and keep where it arose, without data, in the shop's ``logs``."""
    if debugging():
        import traceback

        traceback.print_exception(error)
    say(f"error: something went wrong inside penchant ({type(error).__name__})")
    written = None if shop is None else _log(error, shop, trace)
    where = f"it is described in {written}; " if written else ""
    say(f"hint: {where}set PENCHANT_DEBUG=1 to see the traceback here")


def _log(error: BaseException, shop: Path, trace: Callable[[BaseException], str]) -> Path | None:
    if not (shop / "shop.toml").is_file():
        return None
    path = shop / "logs" / f"error-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S%f}.log"
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(trace(error) + "\n", encoding="utf-8")
    except OSError:
        return None
    return path


def write_out(content: bytes) -> None:
    """Write to standard output."""
    sys.stdout.flush()
    out: Any = getattr(sys.stdout, "buffer", None)
    if out is None:
        sys.stdout.write(content.decode())
    else:
        out.write(content)
        out.flush()
