"""ASGI endpoints: one class for every operation of the table, one for the jobs."""

from __future__ import annotations

import asyncio
import json
import logging
import mimetypes
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import Context, copy_context
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from penchant.core.errors import InputError, Malformed, NotFound, PenchantError
from penchant.engine import (
    CALLER,
    OPERATIONS,
    QUICK,
    RESPONSE_HEADER,
    Engine,
    Jobs,
    JobStatus,
    Operation,
    error_of,
    renamed,
    renamed_problem,
    strict_json,
    trace_of,
)
from penchant.surfaces._body import Limits, Parts, RefusedError, header, read_body, read_parts, safe_name
from penchant.surfaces._gate import require
from penchant.surfaces._line import Line
from penchant.surfaces._metrics import Metrics
from penchant.surfaces._send import HEADERS, JSON, problem_response, send_json, send_problem

log = logging.getLogger("penchant.http")
T = TypeVar("T")


class Server:
    """What the endpoints of one app share: the engine, its jobs, the threads and the limits.

    ``quick`` threads answer serve operations; those that can be answered together have one thread of their own,
    ``answers``, which finds its data in the cache of its core. ``slow`` ones do everything that may take a while, so
    that a batch never stands in the way of a visitor. Events wait in a line of their own, whose threads take all that
    are there: they share a commit to the disk, and while one waits for it the other reads what comes next. ``looks``
    tells health and numbers, however busy the others are.
    """

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.engine = engine
        self.limits = limits
        self.quick = Line("quick", threads=2, waiting=limits.waiting, patience=limits.patience)
        self.answers = Line(
            "answers", threads=1, waiting=limits.waiting, patience=limits.patience, together=8
        )
        self.events = Line("events", threads=2, waiting=limits.waiting * 16, together=256)
        self.slow = ThreadPoolExecutor(4, thread_name_prefix="slow")
        self.looks = ThreadPoolExecutor(1, thread_name_prefix="look")
        self.collect_all: Callable[[Sequence[Any]], Sequence[Any]] = lambda asked: engine.collect_all(asked)
        self._jobs: Jobs | None = None
        self._making = threading.Lock()
        self.metrics = Metrics(engine, lambda: self._jobs)

    @property
    def jobs(self) -> Jobs:
        """The jobs of the shop; raises ``ShopError`` while the folder is no shop."""
        with self._making:
            if self._jobs is None:
                self._jobs = Jobs(self.engine)
        return self._jobs

    def close(self) -> None:
        """Stop jobs and threads, and release the shop."""
        if self._jobs is not None:
            self._jobs.close()
        self.quick.close()
        self.answers.close()
        self.events.close()
        self.slow.shutdown(wait=True)
        self.looks.shutdown(wait=True)
        self.engine.close()


async def answered(respond: ASGIApp, what: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request; what goes wrong is told as problem details.

    Args:
        respond: Answers it, or raises.
        what: It is called in the log.
    """
    try:
        await respond(scope, receive, send)
    except ConnectionResetError:
        return  # nobody is there to be told
    except RefusedError as refused:
        await send_problem(send, refused.error, status=refused.status)
    except PenchantError as error:
        await send_problem(send, error)
    except Exception as error:  # an answer without a trace; the log gets it without data
        log.error("%s failed unexpectedly\n%s", what, trace_of(error))
        await send_problem(send, error)


class OperationEndpoint:
    """One operation over HTTP."""

    def __init__(self, operation: Operation, server: Server) -> None:
        self.operation = operation
        self.server = server
        self.inputs = {name: operation.file_words().get(name, ()) for name in operation.file_fields("in")}
        self.outputs = operation.file_fields("out")
        self._in_list = _list_fields(operation)
        self._call: Callable[[Any], Any] = getattr(server.engine, operation.name)
        self._all: Callable[[Any], Iterable[Any]] | None = getattr(
            server.engine, operation.together or "", None
        )
        self._answer_all = self._together  # one object, however often it is asked for: lines compare them
        usual = server.answers if operation.together else server.quick
        self._line = server.events if operation.scope == "write" else usual
        self._encode = msgspec.json.Encoder().encode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await answered(self._respond, self.operation.name, scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        require(self.server.engine, self.operation.scope, self.operation.name)
        kind = header(scope, b"content-type").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            await self._with_files(scope, receive, send)
            return
        body = await read_body(scope, receive, self.server.limits)
        if body and kind != JSON and not kind.endswith("+json"):
            error = InputError(
                "the request must be JSON", value=kind or None, hint=f"send Content-Type: {JSON}"
            )
            raise RefusedError(415, error)
        request = self.operation.parse(body)
        for name, words in self.inputs.items():
            if (given := getattr(request, name)) is not None and given not in words:
                raise InputError(
                    "a request cannot name a file of the server",
                    path=f"$.{name}",
                    hint=f"send the file as a multipart part named {name}",
                )
        if self.operation.job or any(getattr(request, name) is not None for name in self.outputs):
            await self._answer_files(request, {}, None, send)
            return
        if self._all is not None and all(getattr(request, name) is None for name in self.inputs):
            answer = await self._line.ask(self._answer_all, request, len(body))
        elif self.operation.scope in QUICK:
            answer = await self._line.ask(self._alone, (copy_context(), request), len(body))
        else:
            answer = await in_thread(self.server.slow, self._call_and_encode, request)
        await send_json(send, answer)

    def _call_and_encode(self, request: msgspec.Struct) -> bytes:
        return self._encode(self._call(request))

    def _alone(self, requests: Sequence[tuple[Context, msgspec.Struct]]) -> list[bytes]:
        return [context.run(self._call_and_encode, request) for context, request in requests]

    def _together(self, requests: Sequence[msgspec.Struct]) -> Iterable[bytes | Exception]:
        assert self._all is not None
        found = self._all(requests)
        told = (a if isinstance(a, Exception) else self._encode(a) for a in found)
        return list(told) if isinstance(found, list) else told

    async def _with_files(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.inputs:
            error = InputError(f"{self.operation.name} takes no files", hint=f"send {JSON}")
            raise RefusedError(415, error)
        jobs = await in_thread(self.server.slow, lambda: self.server.jobs)
        spool = jobs.make_spool()
        try:
            parts = await read_parts(
                scope,
                receive,
                folder=spool,
                fields=frozenset(self.inputs),
                limits=self.server.limits,
                pool=self.server.slow,
            )
            request = self._build(parts)
            names = {str(path): path.name for paths in parts.files.values() for path in paths}
        except BaseException:
            shutil.rmtree(spool, ignore_errors=True)
            raise
        await self._answer_files(request, names, spool, send)

    def _build(self, parts: Parts) -> msgspec.Struct:
        """The request of the JSON part, with the paths of the received files in its file fields."""
        fields = strict_json(parts.request or b"{}")
        if not isinstance(fields, dict):
            raise Malformed("the part named request is not a JSON object", value=type(fields).__name__)
        for name, words in self.inputs.items():
            given = fields.pop(name, None)
            paths = [str(path) for path in parts.files.get(name, [])]
            if paths and not self._in_list[name] and len(paths) > 1:
                raise InputError(
                    f"{name} takes one file", value=len(paths), path=f"$.{name}", hint="send one part"
                )
            if paths:
                fields[name] = paths if self._in_list[name] else paths[0]
            elif isinstance(given, str) and given in words:
                fields[name] = given
            elif given is not None:
                raise InputError(
                    "a request cannot name a file of the server",
                    path=f"$.{name}",
                    hint=f"send the file as a multipart part named {name}",
                )
        return self.operation.build(**fields)

    async def _answer_files(
        self, request: msgspec.Struct, names: Mapping[str, str], spool: Path | None, send: Send
    ) -> None:
        """Answer a job, or an operation that reads or writes files."""
        outputs = {
            name: safe_name(given) for name in self.outputs if (given := getattr(request, name)) is not None
        }
        if self.operation.job:

            def submit() -> Any:
                return self.server.jobs.submit(
                    self.operation, request, names=names, spool=spool, outputs=outputs
                )

            try:
                status = await in_thread(self.server.slow, submit)
            except BaseException:
                _remove(spool)
                raise
            location = (b"location", f"/v1/jobs/{status.id}".encode())
            await send_json(send, self._encode(status), status=202, headers=(location,))
            return
        perform = partial(self._perform, request, names, outputs, spool)
        value, written = await in_thread(self.server.slow, perform)
        if written is None:
            await send_json(send, self._encode(value))
        else:
            with written:
                await _send_file(send, written, {RESPONSE_HEADER: json.dumps(value, ensure_ascii=True)})

    def _perform(
        self,
        request: msgspec.Struct,
        names: Mapping[str, str],
        outputs: Mapping[str, str],
        spool: Path | None,
    ) -> tuple[Any, IO[bytes] | None]:
        """Do it with files: the answer, and the file that was written, whose name is gone already.

        Raises:
            PenchantError: As the operation does, with the caller's file names.
        """
        folder = self.server.jobs.make_spool()
        try:
            files = {name: folder / name / wanted for name, wanted in outputs.items()}
            for path in files.values():
                path.parent.mkdir()
            names = {**names, **{str(path): path.name for path in files.values()}}
            request = msgspec.structs.replace(request, **{name: str(path) for name, path in files.items()})
            try:
                value = renamed(msgspec.to_builtins(self._call(request)), names)
            except PenchantError as error:
                raise error_of(renamed_problem(error, names)) from error
            written = [path.open("rb") for path in files.values() if path.exists()]
            return value, written[0] if written else None
        finally:
            _remove(folder)
            _remove(spool)


async def in_thread(pool: Executor, function: Callable[..., T], *arguments: Any) -> T:
    """Run a function in a thread that knows the caller of this request."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(pool, copy_context().run, partial(function, *arguments))


def _list_fields(operation: Operation) -> dict[str, bool]:
    from penchant.surfaces._fields import fields_of

    return {field.name: field.many for field in fields_of(operation.request)}


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


class JobEndpoints:
    """The jobs over HTTP: list, look, fetch a file, stop."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def all(self, request: Request) -> Response:
        """Every job that the caller may know of, newest first."""
        return await self._answer(lambda: _json([one for one in self.server.jobs.all() if _may_see(one)]))

    async def one(self, request: Request) -> Response:
        """How a job stands; DELETE stops it."""
        job_id = request.path_params["job_id"]
        if request.method == "DELETE":
            return await self._answer(lambda: _json(self.server.jobs.cancel(self._known(job_id).id)))
        return await self._answer(lambda: _json(self._known(job_id)))

    async def file(self, request: Request) -> Response:
        """A file that a job wrote."""
        job_id, field = request.path_params["job_id"], request.path_params["field"]

        def find() -> Response:
            path = self.server.jobs.output(self._known(job_id).id, field)
            return FileResponse(path, filename=path.name, media_type=_media_type(path))

        return await self._answer(find)

    def _known(self, job_id: str) -> JobStatus:
        """A job the caller may know of; any other is as good as none."""
        status = self.server.jobs.status(job_id)
        if not _may_see(status):
            raise NotFound("there is no such job", value=job_id[:100], hint="see the list of jobs")
        return status

    async def _answer(self, make: Callable[[], Response]) -> Response:
        try:
            return await in_thread(self.server.slow, make)
        except PenchantError as error:
            return problem_response(error)


def _may_see(status: JobStatus) -> bool:
    """Whether the caller's key could have submitted a job: that of its operation."""
    operation = OPERATIONS.get(status.operation)
    scopes = CALLER.get().scopes
    return scopes is None or (operation.scope if operation is not None else "govern") in scopes


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type=JSON, headers={"Cache-Control": "no-store"})


def _media_type(path: Path) -> str:
    if path.suffix == ".parquet":
        return "application/vnd.apache.parquet"
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


async def _send_file(send: Send, file: IO[bytes], headers: Mapping[str, str]) -> None:
    """Send an open file as the body of an answer."""
    loop = asyncio.get_running_loop()
    length = str(os.fstat(file.fileno()).st_size).encode()
    media_type = _media_type(Path(file.name)).encode()
    rows = [(b"content-type", media_type), (b"content-length", length), *HEADERS]
    rows += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": rows})
    while chunk := await loop.run_in_executor(None, file.read, 1 << 20):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
