"""Which shop this is: an id of its own, made once, under which servers that it shares with others keep its parts."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path
from typing import NamedTuple

from penchant.core.errors import ShopError

FILE = "shop.id"
_FORM = re.compile(r"([0-9a-f]{16})(?: (.+))?\n?", re.DOTALL)


class Identity(NamedTuple):
    """A shop's id, and under which name its parts may lie on servers since before it had one."""

    id: str
    name: str | None = None


def give_identity(path: Path, name: str | None = None) -> Identity:
    """The identity of a shop, made if it has none; of several processes one makes it.

    Args:
        path: Its folder.
        name: What it was known by on servers before there were ids; None for a shop that is new.

    Raises:
        ShopError: The file is damaged.
    """
    file = path / FILE
    with contextlib.suppress(FileExistsError):
        if not file.exists():
            temporary = path / f".{FILE}.{secrets.token_hex(4)}.tmp"
            try:
                made = secrets.token_hex(8) + ("" if name is None else f" {name}")
                temporary.write_text(made + "\n", "utf-8")
                os.link(temporary, file)  # whole, and never over one that is there
            finally:
                temporary.unlink(missing_ok=True)
    found = read_identity(path)
    assert found is not None
    return found


def read_identity(path: Path) -> Identity | None:
    """The identity of a shop; None where it has none yet.

    Raises:
        ShopError: The file is damaged.
    """
    try:
        match = _FORM.fullmatch((path / FILE).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        match = None
    if match is None:
        raise ShopError(
            "the file that says which shop this is is damaged", value=FILE, hint="restore it from a backup"
        )
    return Identity(match[1], match[2])


def identity_of(path: Path, on_servers: bool, name: str, *, readonly: bool) -> Identity:
    """Which shop this is. One of before there were ids gets one, and is known by its name where its journal lies.

    Args:
        path: Its folder.
        on_servers: Whether it keeps a part on servers; else nobody asks for the id.
        name: As its settings say.
        readonly: Write nothing.
    """
    if not on_servers:
        return read_identity(path) or Identity("")
    elsewhere = (path / "events").exists() and not (path / "journal.db").exists()
    known = name if elsewhere else None
    return (read_identity(path) or Identity("", known)) if readonly else give_identity(path, known)
