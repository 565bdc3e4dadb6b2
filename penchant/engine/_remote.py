"""The remote client: an operation on a shop that ``penchant serve`` serves somewhere."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from penchant.core import Progress, no_progress
from penchant.core.errors import InputError, Interrupted, PenchantError, ShopError, UnreadableFile
from penchant.engine._jobs import FINISHED, JobStatus
from penchant.engine._operation import Operation
from penchant.engine._wire import RESPONSE_HEADER, Problem, decode_response, error_of

_FIRST_LOOK, _SLOWEST_LOOK = 0.05, 1.0  # seconds between two looks at a job


class HttpRemote:
    """Sends operations to a server and gives back what it answers, errors included.

    Args:
        url: Where ``penchant serve`` listens, such as ``http://127.0.0.1:8000``.
        key: An API key, where the server asks for one.
        timeout: Seconds to wait for an answer. Requests with files may take any time.
        progress: Told how a job stands while it runs there.
        transport: Another way to reach the server (tests).

    Raises:
        InputError: The URL is not one.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 30.0,
        progress: Progress = no_progress,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        parsed = httpx.URL(url)
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            raise InputError(
                "this is not the URL of a server", value=url, hint="such as http://127.0.0.1:8000"
            )
        self.url = url.rstrip("/")
        self.progress = progress
        self._timeout = timeout
        headers = {"Accept": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key.strip()}"
        self._client = httpx.Client(base_url=self.url, timeout=timeout, transport=transport, headers=headers)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def call(self, operation: Operation, request: msgspec.Struct) -> Any:
        """Run an operation there and give back the response.

        Input files are sent along, output files are written where the request says, jobs are followed.

        Raises:
            PenchantError: Of the class the server gave; ``ShopError`` when no server answers.
        """
        sent = _Sent(operation, request)
        try:
            with self._reach(), contextlib.ExitStack() as stack:
                answer = stack.enter_context(self._post(operation, sent, stack))
                if operation.job and answer.status_code == 202:
                    status = self._follow(self._read(answer, JobStatus, sent))
                else:
                    return self._answer(operation, sent, answer)
            return self._outcome(operation, sent, status)
        except KeyboardInterrupt:
            if operation.job:
                raise Interrupted(
                    f"stopped waiting; the job may go on at {self.url}", hint=f"see {self.url}/v1/jobs"
                ) from None
            raise

    @contextlib.contextmanager
    def _reach(self) -> Iterator[None]:
        """Say in our words that the server cannot be reached."""
        try:
            yield
        except httpx.TimeoutException:
            raise ShopError(
                f"the server at {self.url} did not answer within {self._timeout:g} seconds",
                hint="try again, or give a longer timeout",
            ) from None
        except httpx.TransportError as error:
            raise ShopError(
                f"no server answers at {self.url} ({type(error).__name__})",
                hint="start one with `penchant serve --shop DIR`, or check the URL",
            ) from None

    def _post(
        self, operation: Operation, sent: _Sent, stack: contextlib.ExitStack
    ) -> contextlib.AbstractContextManager[httpx.Response]:
        path = f"/v1/{operation.name}"
        if not sent.inputs:
            timeout = httpx.Timeout(self._timeout, read=None) if sent.outputs else self._client.timeout
            headers = {"Content-Type": "application/json"}
            return self._client.stream("POST", path, content=sent.body, headers=headers, timeout=timeout)
        parts: list[tuple[str, Any]] = [("request", (None, sent.body, "application/json"))]
        for field, file in sent.inputs:
            opened = stack.enter_context(_open(file))
            parts.append((field, (file.name, opened, "application/octet-stream")))
        timeout = httpx.Timeout(self._timeout, read=None, write=None)
        return self._client.stream("POST", path, files=parts, timeout=timeout)

    def _answer(self, operation: Operation, sent: _Sent, answer: httpx.Response) -> Any:
        header = answer.headers.get(RESPONSE_HEADER)
        if header is None or answer.is_error:
            return self._decode(operation, sent, self._read(answer, Any, sent))
        ((_, path),) = sent.outputs.items()
        _save(answer, path)
        return self._decode(operation, sent, msgspec.json.decode(header))

    def _follow(self, status: JobStatus) -> JobStatus:
        """Look at a job until it is finished, and pass its progress on."""
        pause = _FIRST_LOOK
        told: tuple[Any, ...] = ()
        while status.state not in FINISHED:
            time.sleep(pause)
            pause = min(pause * 1.5, _SLOWEST_LOOK)
            status = self._read(self._client.get(f"/v1/jobs/{status.id}"), JobStatus, None)
            told_now = (status.task, status.done, status.total)
            if status.task is not None and told_now != told:
                told = told_now
                self.progress(status.task, status.done, status.total, status.figures)
        return status

    def _outcome(self, operation: Operation, sent: _Sent, status: JobStatus) -> Any:
        if status.error is not None:
            raise sent.restore(error_of(status.error))
        for field, path in sent.outputs.items():
            if field in status.files:
                url = f"/v1/jobs/{status.id}/files/{quote(field)}"
                with self._reach(), self._client.stream("GET", url) as answer:
                    if answer.is_error:
                        self._read(answer, Any, sent)
                    _save(answer, path)
        return self._decode(operation, sent, status.result)

    def _decode(self, operation: Operation, sent: _Sent, value: Any) -> Any:
        try:
            return decode_response(operation.response, sent.named(value))
        except msgspec.ValidationError as error:
            raise ShopError(
                f"the server's answer to {operation.name} is not understood: {error}",
                hint="install the same version of penchant on both sides",
            ) from None

    def _read(self, answer: httpx.Response, kind: Any, sent: _Sent | None) -> Any:
        """Decode an answer; raise what a problem says."""
        content = answer.read()
        try:
            if answer.is_error:
                error = error_of(msgspec.json.decode(content, type=Problem))
                raise error if sent is None else sent.restore(error)
            return msgspec.json.decode(content, type=kind)
        except msgspec.MsgspecError:
            raise ShopError(
                f"{self.url} does not answer like a penchant server",
                value=answer.status_code,
                hint="check the URL, and that both sides have the same version",
            ) from None


class _Sent:
    """A request taken apart: the JSON that travels, the files that go and those that come back."""

    def __init__(self, operation: Operation, request: msgspec.Struct) -> None:
        fields = msgspec.to_builtins(request)
        self.inputs: list[tuple[str, Path]] = []
        words = operation.file_words()
        for name in operation.file_fields("in"):
            given = fields[name]
            paths = [given] if isinstance(given, str) else given or []
            paths = [path for path in paths if path not in words.get(name, ())]
            if paths:
                del fields[name]
                self.inputs += [(name, Path(path)) for path in paths]
        self.outputs: dict[str, Path] = {}
        for name in operation.file_fields("out"):
            if fields[name] is not None:
                self.outputs[name] = Path(fields[name])
                fields[name] = self.outputs[name].name
        self._given = {name: getattr(request, name) for name in self.outputs}
        names = [path.name for _, path in self.inputs]
        self._paths = {path.name: str(path) for _, path in self.inputs if names.count(path.name) == 1}
        self.body = msgspec.json.encode(fields)

    def named(self, value: Any) -> Any:
        """Where an answer names a file, name it as the caller did."""
        value = _renamed_exactly(value, self._paths)
        if isinstance(value, dict):
            given = {name: path for name, path in self._given.items() if isinstance(value.get(name), str)}
            return {**value, **given}
        return value

    def restore(self, error: PenchantError) -> PenchantError:
        """Where an error shows a file that was sent, show the caller's path."""
        error.value = _renamed_exactly(error.value, self._paths)
        error.path = _renamed_exactly(error.path, self._paths)
        return error


def _renamed_exactly(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, dict):
        return {key: _renamed_exactly(inner, names) for key, inner in value.items()}
    return [_renamed_exactly(inner, names) for inner in value] if isinstance(value, list) else value


def _open(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise UnreadableFile(
            f"the file cannot be read: {error.strerror}", value=str(path), hint="check the path"
        ) from None


def _save(answer: httpx.Response, path: Path) -> None:
    """Write a body to a file; it is there complete or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            for chunk in answer.iter_bytes():
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
