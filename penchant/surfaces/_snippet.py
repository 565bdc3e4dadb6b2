"""The script that a shop's pages load to send their events: one small file, squeezed once."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_TEXT = re.compile(r'("(?:[^"\\]|\\.)*")')
_MARKS = re.compile(r"\s*([^\w\s$#.\[\]])\s*")


@cache
def snippet() -> bytes:
    """The script without comments and blanks, as browsers get it."""
    source = (Path(__file__).parent / "templates" / "penchant.js").read_text()
    return (
        "".join(part if part.startswith('"') else _squeezed(part) for part in _TEXT.split(source))
        .strip()
        .encode()
    )


def _squeezed(code: str) -> str:
    code = re.sub(r"\s+", " ", re.sub(r"//[^\n]*", "", code))
    return re.sub(r"[;,]}", "}", _MARKS.sub(r"\1", code))
