"""The faces of the engine: command line, HTTP server and reference pages, all derived from its operations.

Names load on first use, so that ``penchant --help`` does not wait for the server's libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penchant.core import load_on_use

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


__getattr__ = load_on_use(__name__, _LAZY)
