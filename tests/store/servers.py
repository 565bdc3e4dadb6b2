"""Real servers from Debian's packages, started for a test session in folders of their own."""

import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def find(*names: str) -> str:
    """A program on the path or among Debian's; else the test is skipped, loudly."""
    for name in names:
        found = shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))), None)
        if found:
            return found
    pytest.skip(
        f"NOT TESTED HERE: {' or '.join(names)} is not installed (apt-get install postgresql redis-server)"
    )


def wait_for(answers: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 30
    while not answers():
        assert process.poll() is None, "the server ended"
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.05)


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server; gives its address."""
    initdb, server, ready = find("initdb"), find("postgres"), find("pg_isready")
    folder = Path(tempfile.mkdtemp(prefix="penchant-pg-"))
    as_user = {}
    if os.geteuid() == 0:  # it refuses to run as root
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("NOT TESTED HERE: PostgreSQL does not run as root, and there is no user postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    port = free_port()
    made = subprocess.run(
        [initdb, "-D", str(folder / "data"), "-U", "shop", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
        capture_output=True,
        check=False,
        cwd=folder,
        **as_user,
    )
    assert made.returncode == 0, made.stderr
    command = [server, "-D", str(folder / "data"), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **as_user
    ) as process:
        try:
            check = [ready, "-q", "-h", "127.0.0.1", "-p", str(port)]
            wait_for(lambda: subprocess.run(check, check=False).returncode == 0, process)
            yield f"postgresql://shop@127.0.0.1:{port}/postgres"
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)


class Cache:
    """A Redis or Valkey server that can be stopped and started again."""

    def __init__(self) -> None:
        self.program = find("valkey-server", "redis-server")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        command = [
            self.program,
            "--port",
            str(self.port),
            "--save",
            "",
            "--bind",
            "127.0.0.1",
            "--dir",
            "/tmp",
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(answers, self.process)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
