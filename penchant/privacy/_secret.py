"""A random secret of a shop, in a file that only its owner reads."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def own_secret(path: Path) -> bytes:
    """32 random bytes as hexadecimal text, made at the first call; of several processes one makes them."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    with contextlib.suppress(FileExistsError):
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_hex(32).encode())
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)  # whole, and never over one that is there
        finally:
            temporary.unlink(missing_ok=True)
    return path.read_bytes()
