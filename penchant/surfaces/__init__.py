"""The faces of the engine: command line, HTTP server and reference pages, all derived from its operations.

Names load on first use, so that ``penchant --help`` does not wait for the server's libraries.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penchant.surfaces._openapi import openapi
    from penchant.surfaces._options import command_line
    from penchant.surfaces._reference import reference_pages
    from penchant.surfaces.http import create_app, serve

_LAZY = {
    "command_line": "_options",
    "create_app": "http",
    "openapi": "_openapi",
    "reference_pages": "_reference",
    "serve": "http",
}

__all__ = ["command_line", "create_app", "openapi", "reference_pages", "serve"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
