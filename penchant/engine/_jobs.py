"""Jobs of a server: operations too long for a request, run one at a time, their state kept as files.

A job that writes to the store runs in a thread of the process that holds the shop's lock. An ``isolated`` one
only reads: it gets a process of its own with a read-only engine, so that the server never loads what training
loads. What jobs of the ``govern`` scope answer is about a person and stays in memory alone.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import logging
import secrets
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from penchant.core import Micros, Noun, Progress, now
from penchant.core.errors import Interrupted, NotFound, PenchantError, ShopBusy
from penchant.engine._access import CALLER, Caller
from penchant.engine._operation import OPERATIONS, Operation
from penchant.engine._presence import Presence
from penchant.engine._wire import Problem, problem_of, renamed, renamed_problem, trace_of
from penchant.store import atomic_write

if TYPE_CHECKING:
    from penchant.engine._engine import Engine

log = logging.getLogger("penchant.jobs")

State = Literal["queued", "running", "done", "failed", "interrupted"]
FINISHED: frozenset[State] = frozenset({"done", "failed", "interrupted"})
_KEPT = 100  # finished jobs on disk
_WAITING = 32  # jobs in the queue
_PERSONAL_SECONDS = 900.0  # how long an answer about a person is kept in memory
_PERSONAL_KEPT = 32  # such answers at a time: as many as may wait for their turn together
SEND_AGAIN = "send the same request again; finished steps are not repeated"


class JobStatus(Noun, frozen=True):
    """How a job stands. ``result`` is the operation's response; ``files`` names what can be fetched."""

    id: str
    operation: str
    state: State
    created: Micros
    started: Micros | None = None
    finished: Micros | None = None
    task: str | None = None
    done: int = 0
    total: int | None = None
    figures: dict[str, float] = {}
    result: Any = None
    error: Problem | None = None
    files: list[str] = []


@dataclass(eq=False)
class Job:
    """A job this process knows from its submission on."""

    operation: Operation
    request: msgspec.Struct | None
    status: JobStatus
    names: Mapping[str, str] = field(default_factory=dict)  # our temporary path -> the caller's file name
    spool: Path | None = None  # uploaded files, removed when the job is over
    outputs: dict[str, Path] = field(default_factory=dict)  # output field -> file
    stop: threading.Event = field(default_factory=threading.Event)
    ended: float = 0.0  # monotonic
    caller: Caller = field(default_factory=CALLER.get)  # who submitted it: the access log names them
    about: frozenset[str] = frozenset()  # ids of the person, once a job about somebody is over

    def change(self, **changes: Any) -> None:
        """Replace parts of the status."""
        self.status = msgspec.structs.replace(self.status, **changes)

    def progress(self, task: str, done: int, total: int | None, figures: Mapping[str, float]) -> None:
        """Take note of progress; the place where a job that is told to stop does."""
        if self.stop.is_set():
            raise Interrupted("the job was stopped", hint=SEND_AGAIN)
        self.change(task=task, done=done, total=total, figures=dict(figures))


Runner = Callable[[Path, Job], Any]
"""Runs an isolated job on the shop at a path and gives back its JSON-ready response."""


def _isolated(shop: Path, job: Job) -> Any:
    from penchant.engine._job_process import run_isolated

    return run_isolated(shop, job)


class Jobs:
    """The jobs of one served shop.

    Args:
        engine: The engine that holds the shop; its ``progress`` is taken over for jobs in this process.
        runner: How isolated jobs are run.
    """

    def __init__(self, engine: Engine, *, runner: Runner = _isolated) -> None:
        if engine.path is None:
            raise ValueError("jobs need an engine with a shop folder")
        engine.shop  # noqa: B018  takes the shop's lock: what is left behind below is nobody else's
        self.engine = engine
        self.folder = engine.path / "jobs"
        self._presence = Presence(engine.path / "jobs" / "servers")
        self._prefix = f"{self.spool_prefix(engine.path)}{self._presence.name}-"
        self._runner = runner
        self._known: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._here = threading.local()
        self._elsewhere: Progress = engine.progress
        engine.progress = self._progress
        self._recover()

    def _progress(self, task: str, done: int, total: int | None, figures: Mapping[str, float]) -> None:
        job: Job | None = getattr(self._here, "job", None)
        (job.progress if job is not None else self._elsewhere)(task, done, total, figures)

    def _recover(self) -> None:
        """What a server that died left behind: no job goes on by itself, and uploads are of no use.

        What belongs to another server of the shop that lives stays.
        """
        prefix = self.spool_prefix(self.folder.parent)
        for path in Path(tempfile.gettempdir()).glob(prefix + "*"):
            if not self._presence.lives(path.name.removeprefix(prefix).partition("-")[0]):
                shutil.rmtree(path, ignore_errors=True)
        for status in self._stored():
            if self._is_elsewhere(status.id):
                continue
            if _personal(status):
                shutil.rmtree(self.folder / status.id / "files", ignore_errors=True)
            if status.state not in FINISHED:
                error = Interrupted(
                    "the server stopped while the job was waiting or running", hint=SEND_AGAIN
                )
                self._write(
                    msgspec.structs.replace(
                        status, state="interrupted", finished=now(), error=problem_of(error), files=[]
                    )
                )
                shutil.rmtree(self.folder / status.id / "files", ignore_errors=True)

    def _is_elsewhere(self, job_id: str) -> bool:
        """Whether a job belongs to another server of the shop that lives."""
        try:
            return self._presence.lives((self.folder / job_id / "server").read_text())
        except OSError:
            return False

    @staticmethod
    def spool_prefix(shop: Path) -> str:
        """How the names of a shop's temporary folders begin."""
        return f"penchant-{hashlib.sha256(str(shop.resolve()).encode()).hexdigest()[:16]}-"

    def make_spool(self) -> Path:
        """Make a private temporary folder for the files of one request. The caller or the job removes it.

        It is not in the shop: what is uploaded is not the shop's before it is ingested.
        """
        return Path(tempfile.mkdtemp(prefix=self._prefix))

    # -- for callers -------------------------------------------------------------------------------------

    def submit(
        self,
        operation: Operation,
        request: msgspec.Struct,
        *,
        names: Mapping[str, str] | None = None,
        spool: Path | None = None,
        outputs: Mapping[str, str] | None = None,
    ) -> JobStatus:
        """Put an operation at the end of the queue.

        Args:
            operation: A row of the table.
            request: Its request; input files are paths in ``spool``.
            names: Temporary path -> the name the caller gave the file.
            spool: Folder to remove when the job is over.
            outputs: Output field of the request -> file name the caller wants; it lies in the job's folder.

        Raises:
            ShopBusy: Too many jobs wait.
        """
        created = now()
        moment = dt.datetime.fromtimestamp(created / 1e6, dt.UTC)
        job_id = f"{moment:%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"
        files = {
            name: self.folder / job_id / "files" / name / wanted for name, wanted in (outputs or {}).items()
        }
        request = msgspec.structs.replace(request, **{name: str(path) for name, path in files.items()})
        job = Job(
            operation,
            request,
            JobStatus(id=job_id, operation=operation.name, state="queued", created=created),
            {**(names or {}), **{str(path): path.name for path in files.values()}},
            spool,
            files,
        )
        with self._changed:
            if self._closed or len(self._queue) >= _WAITING:
                raise ShopBusy("too many jobs wait", value=len(self._queue), hint="try again later")
            for path in files.values():
                path.parent.mkdir(parents=True)
            self._write(job.status)
            (self.folder / job_id / "server").write_text(self._presence.name)
            self._known[job_id] = job
            self._queue.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="penchant-jobs", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return job.status

    def status(self, job_id: str) -> JobStatus:
        """How a job stands.

        Raises:
            NotFound: There is no such job, or it is so old that its record is gone.
        """
        self._forget_personal()
        job = self._known.get(job_id)
        if job is not None:
            return job.status
        for status in self._stored(job_id):
            return status
        raise NotFound("there is no such job", value=job_id[:100], hint="see the list of jobs")

    def all(self) -> list[JobStatus]:
        """All jobs, newest first, without their results."""
        with self._changed:
            latest = {status.id: status for status in self._stored()}
            latest.update((job_id, job.status) for job_id, job in self._known.items())
        return [
            msgspec.structs.replace(latest[job_id], result=None) for job_id in sorted(latest, reverse=True)
        ]

    def output(self, job_id: str, name: str) -> Path:
        """A file that a finished job wrote for an output field.

        Raises:
            NotFound: There is none.
        """
        status = self.status(job_id)
        if status.state == "done" and name in status.files:
            for path in (self.folder / status.id / "files" / name).iterdir():
                return path
        raise NotFound("the job has no such file", value=name[:100], hint="wait until it is done")

    def cancel(self, job_id: str) -> JobStatus:
        """Stop a job that waits or runs; a finished one stays as it is.

        Raises:
            NotFound: There is no such job.
            ShopBusy: Another server of the shop runs it.
        """
        status = self.status(job_id)
        job = self._known.get(job_id)
        if job is None and status.state not in FINISHED and self._is_elsewhere(job_id):
            raise ShopBusy(
                "another server of this shop runs the job",
                value=job_id[:100],
                hint="ask again: any may answer",
            )
        if job is not None:
            with self._changed:
                job.stop.set()
                if job in self._queue:
                    self._queue.remove(job)
                    self._finish(
                        job, error=Interrupted("the job was stopped before it began", hint=SEND_AGAIN)
                    )
        return self.status(job_id)

    def close(self, wait: float = 20.0) -> None:
        """Stop the running job and take no more; those that wait are marked interrupted."""
        with self._changed:
            self._closed = True
            for job in self._known.values():
                job.stop.set()
            while self._queue:
                self._finish(self._queue.popleft(), error=Interrupted("the server stopped", hint=SEND_AGAIN))
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(wait)
        self._presence.close()
        self.engine.progress = self._elsewhere

    # -- the one worker ----------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                job = self._queue.popleft()
            self._run(job)

    def _run(self, job: Job) -> None:
        running = msgspec.structs.replace(job.status, state="running", started=now())
        self._here.job = job
        CALLER.set(job.caller)
        self._write_if_possible(running)  # the record first: what a caller has seen, a restart must know
        job.status = running
        try:
            if job.operation.isolated:
                result = self._runner(self.engine.path or self.folder, job)
            else:
                result = msgspec.to_builtins(getattr(self.engine, job.operation.name)(job.request))
        except PenchantError as error:
            self._finish(job, error=error)
        except BaseException as error:  # whatever it is, the job must end and the next one must run
            log.error("job %s failed unexpectedly\n%s", job.operation.name, trace_of(error))
            self._finish(job, error=error)
        else:
            self._finish(job, result=result)
        finally:
            self._here.job = None

    def _finish(self, job: Job, *, result: Any = None, error: BaseException | None = None) -> None:
        if error is None:
            state: State = "done"
        else:
            state = "interrupted" if isinstance(error, Interrupted) else "failed"
        problem = None if error is None else renamed_problem(error, job.names)
        files = [name for name, path in job.outputs.items() if error is None and path.exists()]
        if job.spool is not None:
            shutil.rmtree(job.spool, ignore_errors=True)
        if not files:
            shutil.rmtree(self.folder / job.status.id / "files", ignore_errors=True)
        personal = job.operation.scope == "govern"
        if personal:
            job.about = _ids(job.request)
            self._forget_personal(erased=job.about if job.operation.name == "erase_user" else frozenset())
        final = msgspec.structs.replace(
            job.status,
            state=state,
            finished=now(),
            result=renamed(result, job.names),
            error=problem,
            files=files,
        )
        kept = self._write_if_possible(final)
        self._prune()
        job.request, job.ended, job.status = None, time.monotonic(), final
        if kept and not personal:
            self._known.pop(final.id, None)  # from here on the record on disk speaks

    def _write_if_possible(self, status: JobStatus) -> bool:
        """A full disk must not keep a job from ending; its state is then known in memory alone."""
        try:
            self._write(status)
        except (PenchantError, OSError) as error:
            log.error("the state of job %s cannot be written: %s", status.id, type(error).__name__)
            return False
        return True

    def _forget_personal(self, erased: frozenset[str] = frozenset()) -> None:
        """Drop answers about people: old ones, those of an erased person, and all but the newest few."""
        over = [(job.ended, job_id, job) for job_id, job in list(self._known.items()) if job.ended]
        over.sort(key=lambda entry: entry[0], reverse=True)
        for place, (ended, job_id, job) in enumerate(over):
            old = time.monotonic() - ended > _PERSONAL_SECONDS
            if old or place >= _PERSONAL_KEPT or job.about & erased:
                self._known.pop(job_id, None)
                shutil.rmtree(self.folder / job_id / "files", ignore_errors=True)

    # -- files -------------------------------------------------------------------------------------------

    def _write(self, status: JobStatus) -> None:
        """Keep the state on disk, without what is about a person."""
        if _personal(status):
            error = status.error
            if error is not None:
                error = Problem(
                    type=error.type, title="failed", status=error.status, detail="failed", code=error.code
                )
            status = msgspec.structs.replace(status, result=None, error=error, files=[])
        path = self.folder / status.id
        path.mkdir(parents=True, exist_ok=True)
        atomic_write(path / "state.json", msgspec.json.encode(status))

    def _stored(self, job_id: str = "*") -> list[JobStatus]:
        """Records on disk; a damaged one is as good as none."""
        if job_id != "*" and not job_id.replace("-", "").isalnum():
            return []
        found = []
        for path in sorted(self.folder.glob(f"{job_id}/state.json")):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                found.append(msgspec.json.decode(path.read_bytes(), type=JobStatus))
        return found

    def _prune(self) -> None:
        finished = [status.id for status in self._stored() if status.state in FINISHED]
        for job_id in finished[:-_KEPT]:
            self._known.pop(job_id, None)
            shutil.rmtree(self.folder / job_id, ignore_errors=True)


def _ids(request: msgspec.Struct | None) -> frozenset[str]:
    """The ids a request about a person names."""
    given = (getattr(request, name, None) for name in ("user_id", "anonymous_id"))
    return frozenset(value for value in given if value)


def _personal(status: JobStatus) -> bool:
    operation = OPERATIONS.get(status.operation)
    return operation is None or operation.scope == "govern"


def forget_jobs(folder: Path, subject: str) -> int:
    """Delete the records and files of finished jobs that hold a person's id; returns how many jobs went.

    Args:
        folder: The ``jobs`` folder of a shop.
        subject: The id, searched for as bytes.
    """
    needle = subject.encode()
    gone = 0
    for state in list(folder.glob("*/state.json")):
        try:
            finished = msgspec.json.decode(state.read_bytes(), type=JobStatus).state in FINISHED
        except (OSError, msgspec.MsgspecError):
            finished = True
        files = [path for path in state.parent.rglob("*") if path.is_file()]
        if finished and any(needle in path.read_bytes() for path in files):
            shutil.rmtree(state.parent)
            gone += 1
    return gone
