"""The files of a snapshot: mapped arrays, Arrow tables, and a folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penchant.core.errors import StorageError


def new_array(folder: Path, name: str, dtype: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """An array to be filled that lies in a file; a plain one, saved empty, when it holds nothing.

    The space is reserved at once: writing to a mapped file on a full disk would kill the process.
    """
    path = folder / f"{name}.npy"
    if 0 in shape:
        array = np.zeros(shape, dtype)
        np.save(path, array)
        return array
    mapped: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("rb+") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return mapped


def save_array(folder: Path, name: str, array: npt.NDArray[Any]) -> None:
    """Write a whole array."""
    np.save(folder / f"{name}.npy", array)


def open_array(folder: Path, name: str) -> npt.NDArray[Any]:
    """A saved array, read-only, mapped."""
    path = folder / f"{name}.npy"
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape = np.lib.format.read_array_header_1_0(file)[0]
    # An empty file cannot be mapped. asarray: the same mapped memory as a plain array, without the cost of
    # numpy's memmap class at each access.
    array = np.asarray(np.load(path, mmap_mode=None if 0 in shape else "r", allow_pickle=False))
    array.flags.writeable = False
    return array


def open_part(folder: Path, name: str, dtype: Any) -> npt.NDArray[Any]:
    """Raw numbers of one type without a header, mapped."""
    path = folder / f"{name}.part"
    return np.asarray(np.memmap(path, dtype, mode="r")) if path.stat().st_size else np.zeros(0, dtype)


def save_table(folder: Path, name: str, table: pa.Table) -> None:
    """Write an Arrow table."""
    with (
        pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table.combine_chunks())


def open_table(folder: Path, name: str) -> pa.Table:
    """A saved Arrow table, mapped."""
    return pa.ipc.open_file(pa.memory_map(str(folder / f"{name}.arrow"))).read_all()


@contextmanager
def scratch_folder(folder: Path, name: str) -> Iterator[Path]:
    """A scratch folder beside the final place; it is gone when anything goes wrong.

    Raises:
        StorageError: The disk refused.
    """
    scratch = folder / f".{name}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*-*"):  # of a process that was killed
            if not _alive(left.name.rpartition("-")[2]):
                shutil.rmtree(left, ignore_errors=True)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        yield scratch
    except OSError as error:
        raise StorageError(
            f"the snapshot could not be written: {error.strerror or error}",
            value=str(folder),
            hint="free some disk space or mend the folder, then try again; nothing was changed",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def publish(scratch: Path, place: Path, needed: str) -> None:
    """Make a finished folder visible under its name, in one step and for good.

    Args:
        scratch: The folder.
        place: Its name from now on. If it is there already and has the file ``needed``, that one stays.
        needed: See ``place``.
    """
    for path in [*scratch.iterdir(), scratch]:
        _sync(path)
    try:
        scratch.rename(place)
    except OSError:
        if not (place / needed).exists():
            raise
    _sync(place.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
