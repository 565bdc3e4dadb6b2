"""What a training leaves behind goes when nothing needs it any more."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from penchant.engine._promotion import Pointer, read_pointer, write_pointer
from penchant.training import list_artifacts

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

_ABANDONED = 7 * 86400  # seconds after which a run that was killed is not gone on with


def tidy(shop: Shop, keep: int) -> None:
    """Drop runs that nobody goes on with, and all but the newest artifacts of each kind that nothing points at."""
    for folder in shop.runs.glob("*"):  # a run that goes on writes every few minutes
        with suppress(FileNotFoundError):  # another job was done with it
            if time.time() - folder.stat().st_mtime > _ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)
    pointer = read_pointer(shop.artifacts) or Pointer()
    single = {pointer.promoted, pointer.companions, pointer.tags, pointer.interests}
    needed = {*single, *pointer.previous[:1], *pointer.fallback}
    by_kind: dict[str, list[str]] = {}
    for artifact in list_artifacts(shop.artifacts):  # newest first
        by_kind.setdefault(artifact.kind, []).append(artifact.id)
    for ids in by_kind.values():
        for old in ids[keep:]:
            if old not in needed:
                shutil.rmtree(shop.artifacts / old, ignore_errors=True)
    there = tuple(i for i in pointer.previous if (shop.artifacts / i).is_dir())
    if there != pointer.previous:  # nobody can go back to what was dropped
        write_pointer(shop.artifacts, msgspec.structs.replace(pointer, previous=there))
