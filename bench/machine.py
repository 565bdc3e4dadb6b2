"""What a figure depends on, printed above every table."""

from __future__ import annotations

import importlib.metadata
import os
import platform


def describe() -> str:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("penchant", "numpy", "pyarrow", "duckdb", "deltalake", "onnxruntime")
    )
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}; "
        f"OMP_NUM_THREADS {threads}, load {os.getloadavg()[0]:.2f}"
    )


def busy() -> str:
    """A warning in place of a verdict when other work runs."""
    load = os.getloadavg()[0]
    return f"NO VERDICT: the machine is busy (load {load:.2f} > 1.5)" if load > 1.5 else ""
