"""A process of its own for one isolated job: the server's side, and the program that runs in it.

They speak JSON lines: the order goes in on standard input, progress and at last the result or the error come
back. The end of standard input means that the server is gone, and the job ends too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from penchant.core import Noun
from penchant.core.errors import Interrupted, PenchantError
from penchant.engine._access import CALLER, Caller
from penchant.engine._wire import Problem, error_of, problem_of, trace_of

if TYPE_CHECKING:
    from penchant.engine._jobs import Job

PINNED = "PENCHANT_PINNED"  # names of thread limits the server set for itself, comma separated
COMMAND: tuple[str, ...] = (sys.executable, "-m", "penchant.engine._job_process")
_PATIENCE = 15.0  # seconds a job has to end after it was told to
_EVERY = 0.2  # seconds between two reports of progress


class Order(Noun, frozen=True):
    """What to run, and on which shop."""

    shop: str
    operation: str
    request: dict[str, Any]
    key: str | None = None  # of whoever submitted it
    request_id: str | None = None


class Message(Noun, frozen=True, omit_defaults=True):
    """One line from the process: progress, or the end."""

    task: str | None = None
    done: int = 0
    total: int | None = None
    figures: dict[str, float] = {}
    ended: bool = False
    result: Any = None
    error: Problem | None = None


def run_isolated(shop: Path, job: Job) -> Any:
    """Run a job in a process of its own and give back its JSON-ready response.

    Raises:
        PenchantError: The error the job ended with; ``Interrupted`` when it was told to stop.
    """
    order = Order(
        shop=str(shop),
        operation=job.operation.name,
        request=msgspec.to_builtins(job.request),
        key=job.caller.key,
        request_id=job.caller.request_id,
    )
    pinned = os.environ.get(PINNED, "").split(",")
    env = {name: value for name, value in os.environ.items() if name not in pinned and name != PINNED}
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stopper = threading.Thread(target=_stop_when_told, args=(process, job.stop), daemon=True)
        stopper.start()
        try:
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            process.stdin.flush()
            end = _listen(process.stdout, job)
        except BrokenPipeError:
            end = None
        code = process.wait()
    if job.stop.is_set():
        raise Interrupted("the job was stopped", hint="send the same request again; it goes on where it was")
    if end is None:
        raise PenchantError(
            "the job's process ended without an answer",
            value=code,
            hint="it may have run out of memory; see the server's log, then send the same request again",
        )
    if end.error is not None:
        raise error_of(end.error)
    return end.result


def _listen(lines: IO[bytes], job: Job) -> Message | None:
    """Pass progress on until the end; None when there was none."""
    for line in lines:
        message = msgspec.json.decode(line, type=Message)
        if message.ended:
            return message
        job.change(task=message.task, done=message.done, total=message.total, figures=message.figures)
    return None


def _stop_when_told(process: subprocess.Popen[bytes], stop: threading.Event) -> None:
    while process.poll() is None:
        if stop.wait(0.2):
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
            return


def _end_with_parent() -> None:
    """Standard input ends when the server does, however it ends."""
    while sys.stdin.buffer.readline():
        pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_PATIENCE)
    os._exit(130)


def main() -> None:
    """Run the one order on standard input."""
    channel = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not mix with the messages
    os.nice(5)  # serving goes first
    # A server that a script started in the background ignores SIGINT, and so would its jobs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        end = Message(ended=True, result=_run(order, channel))
    except KeyboardInterrupt:
        end = Message(ended=True, error=problem_of(Interrupted("the job was stopped")))
    except PenchantError as error:
        end = Message(ended=True, error=problem_of(error))
    except Exception as error:
        sys.stderr.write(f"job {order.operation} failed unexpectedly\n{trace_of(error)}\n")
        end = Message(ended=True, error=problem_of(error))
    channel.write(msgspec.json.encode(end) + b"\n")
    channel.close()
    sys.stderr.flush()
    os._exit(0)  # the thread that watches standard input must not hold the process up


def _run(order: Order, channel: IO[bytes]) -> Any:
    from penchant.engine._engine import Engine
    from penchant.engine._operation import OPERATIONS

    last: tuple[str | None, float] = (None, 0.0)

    def progress(task: str, done: int, total: int | None, figures: Mapping[str, float]) -> None:
        nonlocal last
        moment = time.monotonic()
        if task != last[0] or done == total or moment - last[1] >= _EVERY:
            last = (task, moment)
            line = Message(
                task=task, done=done, total=total, figures={k: float(v) for k, v in figures.items()}
            )
            channel.write(msgspec.json.encode(line) + b"\n")

    CALLER.set(Caller(key=order.key, request_id=order.request_id))
    operation = OPERATIONS[order.operation]
    with Engine.open(order.shop, readonly=True, progress=progress) as engine:
        response = getattr(engine, operation.name)(operation.build(**order.request))
    return msgspec.to_builtins(response)


if __name__ == "__main__":
    main()
