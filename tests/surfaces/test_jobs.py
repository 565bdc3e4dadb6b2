"""Jobs: one at a time, states as files, restarts, isolation, and nothing personal at rest."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penchant.core.errors import Interrupted, ModelError, NotFound, ShopBusy
from penchant.engine import OPERATIONS, Engine, Jobs, JobStatus
from penchant.engine._jobs import forget_jobs


def submit(jobs: Jobs, name: str, *, outputs: dict[str, str] | None = None, **fields: Any) -> JobStatus:
    operation = OPERATIONS[name]
    return jobs.submit(operation, operation.build(**fields), outputs=outputs)


def wait_for(jobs: Jobs, job_id: str, *states: str) -> JobStatus:
    deadline = time.monotonic() + 20
    while (status := jobs.status(job_id)).state not in (states or ("done", "failed", "interrupted")):
        assert time.monotonic() < deadline, status
        time.sleep(0.005)
    return status


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_one_at_a_time_in_order(toy: Any, toy_jobs: Jobs) -> None:
    toy.hold.clear()
    first = submit(toy_jobs, "long", steps=1)
    second = submit(toy_jobs, "long", steps=2)
    wait_for(toy_jobs, first.id, "running")
    assert toy_jobs.status(second.id).state == "queued"
    toy.hold.set()
    done = wait_for(toy_jobs, second.id)
    before = toy_jobs.status(first.id)
    assert before.finished is not None
    assert done.started is not None
    assert before.finished <= done.started
    assert done.result == {"steps": 2, "out": None}
    assert [status.id for status in toy_jobs.all()] == [second.id, first.id]
    assert all(status.result is None for status in toy_jobs.all())


def test_progress_is_seen_and_only_of_the_job(toy: Any, toy_jobs: Jobs) -> None:
    toy.hold.clear()
    job = submit(toy_jobs, "long", steps=3)
    while toy_jobs.status(job.id).done < 2:
        time.sleep(0.005)
    toy.progress("somebody else", 7, 7, {})  # of a request answered meanwhile
    status = toy_jobs.status(job.id)
    assert (status.task, status.done, status.total, status.figures) == ("stepping", 2, 3, {"loss": 1 / 3})


def test_states_survive_a_restart(toy: Any, toy_jobs: Jobs) -> None:
    done = wait_for(toy_jobs, submit(toy_jobs, "long", steps=1, outputs={"out": "a.html"}).id)
    failed = wait_for(toy_jobs, submit(toy_jobs, "long", steps=1, fail=True).id)
    toy_jobs.close()
    again = Jobs(toy)
    assert again.status(done.id) == done
    assert again.output(done.id, "out").read_text() == "<p>long</p>"
    error = again.status(failed.id).error
    assert error is not None
    assert error.code == ModelError.code
    again.close()


def test_a_job_found_running_is_interrupted(toy: Any, toy_jobs: Jobs) -> None:
    toy.hold.clear()
    running = submit(toy_jobs, "long", steps=1, outputs={"out": "a.html"})
    waiting = submit(toy_jobs, "long", steps=1)
    wait_for(toy_jobs, running.id, "running")
    left = toy_jobs.make_spool()  # an upload of the server that died
    toy_jobs._presence.close()
    reborn = Jobs(toy)  # as if the first server were gone
    for job in (running, waiting):
        status = reborn.status(job.id)
        assert status.state == "interrupted"
        assert status.error is not None
        assert status.error.code == "interrupted"
        assert "again" in (status.error.hint or "")
    assert not left.exists()
    reborn.close()


def test_a_job_that_is_seen_running_is_running_on_disk(
    toy: Any, toy_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = toy_jobs._write

    def slowly(status: JobStatus) -> None:
        time.sleep(0.1)
        write(status)

    monkeypatch.setattr(toy_jobs, "_write", slowly)
    toy.hold.clear()
    job = submit(toy_jobs, "long", steps=1)
    wait_for(toy_jobs, job.id, "running")
    assert [status.state for status in toy_jobs._stored(job.id)] == ["running"]
    toy.hold.set()


def test_stopping(toy: Any, toy_jobs: Jobs) -> None:
    toy.hold.clear()
    running = submit(toy_jobs, "long", steps=100_000)
    waiting = submit(toy_jobs, "long", steps=1)
    wait_for(toy_jobs, running.id, "running")
    assert toy_jobs.cancel(waiting.id).state == "interrupted"
    toy_jobs.cancel(running.id)
    assert wait_for(toy_jobs, running.id).state == "interrupted"
    toy.hold.set()
    assert wait_for(toy_jobs, submit(toy_jobs, "long", steps=1).id).state == "done"  # the next one runs
    with pytest.raises(NotFound):
        toy_jobs.cancel("nothing")


def test_the_queue_is_bounded(toy: Any, toy_jobs: Jobs) -> None:
    toy.hold.clear()
    submit(toy_jobs, "long", steps=1)
    wait_for(toy_jobs, toy_jobs.all()[0].id, "running")
    for _ in range(32):
        submit(toy_jobs, "long", steps=1)
    with pytest.raises(ShopBusy):
        submit(toy_jobs, "long", steps=1)


def test_closing_interrupts_what_waits(toy: Any, toy_jobs: Jobs) -> None:
    running, waiting = submit(toy_jobs, "long", steps=100_000), submit(toy_jobs, "long", steps=1)
    wait_for(toy_jobs, running.id, "running")
    toy_jobs.close()
    assert {toy_jobs.status(job.id).state for job in (running, waiting)} == {"interrupted"}
    with pytest.raises(ShopBusy):
        submit(toy_jobs, "long", steps=1)


def test_nothing_about_a_person_is_at_rest(toy: Any, toy_jobs: Jobs) -> None:
    told = submit(toy_jobs, "person", user_id="user-4711")
    assert wait_for(toy_jobs, told.id).result == {"subject": "user-4711"}
    failed = wait_for(toy_jobs, submit(toy_jobs, "person", user_id="nobody").id)
    assert failed.error is not None
    assert failed.error.value == "nobody"
    written = b"".join(path.read_bytes() for path in files(toy.path))
    assert b"user-4711" not in written
    assert b'"nobody"' not in written
    assert toy_jobs.status(told.id).result == {"subject": "user-4711"}  # whoever asked may still come for it


def test_answers_about_people_go_when_they_are_old_or_many(
    toy: Any, toy_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penchant.engine._jobs._PERSONAL_KEPT", 2)
    told = wait_for(toy_jobs, submit(toy_jobs, "person", user_id="user-4711", outputs={"out": "x.json"}).id)
    assert toy_jobs.output(told.id, "out").read_text() == "user-4711"
    for other in ("a", "b", "c"):
        last = wait_for(toy_jobs, submit(toy_jobs, "person", user_id=other).id)
    with pytest.raises(NotFound):
        toy_jobs.output(told.id, "out")
    assert not any(b"user-4711" in path.read_bytes() for path in files(toy.path))
    assert toy_jobs.status(last.id).result == {"subject": "c"}
    monkeypatch.setattr("penchant.engine._jobs._PERSONAL_SECONDS", 0.0)
    assert toy_jobs.status(last.id).result is None
    assert toy_jobs.status(last.id).state == "done"


def test_an_erasure_takes_earlier_answers_about_the_person_along(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "shop") as engine:
        engine.init()
        jobs = Jobs(engine)
        told = [submit(jobs, "export_user", user_id=who) for who in ("user-4711", "other")]
        receipt = wait_for(jobs, submit(jobs, "erase_user", user_id="user-4711").id)
        assert receipt.result["subject"] == "user-4711"
        assert jobs.status(told[0].id).result is None
        assert jobs.status(told[1].id).result["subject"] == "other"
        jobs.close()


def test_an_erasure_forgets_finished_jobs_that_name_the_person(toy: Any, toy_jobs: Jobs) -> None:
    toy.hold.clear()
    running = submit(toy_jobs, "long", steps=1)
    toy.hold.set()
    plain = wait_for(toy_jobs, running.id)
    folder = toy.path / "jobs"
    (folder / plain.id / "files").mkdir(exist_ok=True)
    (folder / plain.id / "files" / "refused.csv").write_text("row 3, user-4711")
    other = wait_for(toy_jobs, submit(toy_jobs, "long", steps=1).id)
    assert forget_jobs(folder, "user-4711") == 1
    assert [path.parent.name for path in folder.glob("*/state.json")] == [other.id]


def test_old_records_go(toy: Any, toy_jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penchant.engine._jobs._KEPT", 2)
    ids = [wait_for(toy_jobs, submit(toy_jobs, "long", steps=0).id).id for _ in range(4)]
    assert [status.id for status in toy_jobs.all()] == [ids[3], ids[2]]


def test_damaged_records_are_passed_over(toy: Any, toy_jobs: Jobs) -> None:
    done = wait_for(toy_jobs, submit(toy_jobs, "long", steps=0).id)
    (toy.path / "jobs" / "broken").mkdir()
    (toy.path / "jobs" / "broken" / "state.json").write_bytes(b"{")
    assert [status.id for status in toy_jobs.all()] == [done.id]


CHILD = """
import sys, time
from pathlib import Path
from penchant.engine import _engine, _job_process
from penchant.core import no_progress
sys.path.insert(0, {tests!r})
from conftest import make_toy_engine, LongReport
from penchant.core.errors import ModelError

made = []
class Toy:
    def __init__(self, progress): self.progress = progress
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def apart(self, request):
        print("a library prints this")
        for step in range(request.steps):
            self.progress("apart", step, request.steps, {{"loss": 0.5}})
            time.sleep(0.01)
        if request.fail: raise ModelError("it did not work", value=3, hint="again")
        return LongReport(steps=request.steps)

make_toy_engine()
def open_engine(path, *, readonly, progress):
    assert readonly
    return Toy(progress)
_engine.Engine.open = staticmethod(open_engine)
_job_process.main()
"""


@pytest.fixture
def isolated(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """Jobs whose processes know the toy's operations."""
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD).format(tests=str(Path(__file__).parent)))
    monkeypatch.setattr("penchant.engine._job_process.COMMAND", (sys.executable, str(script)))
    return Jobs(toy)


def test_an_isolated_job_runs_elsewhere(isolated: Jobs) -> None:
    job = submit(isolated, "apart", steps=100)
    tasks = set()
    while (status := isolated.status(job.id)).state not in {"done", "failed", "interrupted"}:
        tasks.add((status.task, status.total))
        time.sleep(0.01)
    assert status.state == "done", status
    assert status.result == {"steps": 100, "out": None}
    assert ("apart", 100) in tasks
    failed = wait_for(isolated, submit(isolated, "apart", steps=1, fail=True).id)
    assert failed.error is not None
    assert (failed.error.code, failed.error.value) == ("model", 3)
    isolated.close()


def test_an_isolated_job_can_be_stopped(isolated: Jobs) -> None:
    job = submit(isolated, "apart", steps=100_000)
    while isolated.status(job.id).task is None:
        time.sleep(0.01)
    isolated.cancel(job.id)
    status = wait_for(isolated, job.id)
    assert status.state == "interrupted"
    assert status.error is not None
    assert status.error.code == Interrupted.code
    isolated.close()


def test_a_process_that_dies_is_a_failed_job(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "penchant.engine._job_process.COMMAND", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    )
    jobs = Jobs(toy)
    status = wait_for(jobs, submit(jobs, "apart", steps=1).id)
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.value == -signal.SIGKILL
    jobs.close()


@pytest.mark.parametrize("background", [False, True])
def test_a_job_ends_with_its_server(tmp_path: Path, isolated: Jobs, background: bool) -> None:
    """Also where the server was started by a script in the background, which ignores interrupts."""
    order = msgspec.json.encode({"shop": str(tmp_path), "operation": "apart", "request": {"steps": 100_000}})
    from penchant.engine._job_process import COMMAND

    ignored = ("sh", "-c", 'trap "" INT; exec "$@"', "sh") if background else ()
    with subprocess.Popen([*ignored, *COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(order + b"\n")
        process.stdin.flush()
        assert b"apart" in process.stdout.readline()  # it runs
        process.stdin.close()  # as when the server is killed
        process.stdout.read()
        assert process.wait(10) == 0
    isolated.close()
