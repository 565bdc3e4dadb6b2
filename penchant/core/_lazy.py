"""Packages whose names load on first use, so that importing one stays cheap."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def load_on_use(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make a package's ``__getattr__`` (PEP 562).

    Args:
        package: Its ``__name__``.
        modules: Public name -> the module it lives in: a module of this package, or a full name.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 - becomes the package's own
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        where = modules[name]
        module = importlib.import_module(where if "." in where else f"{package}.{where}")
        value = getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
