"""All benchmarks, one after the other (``make bench``), RecTools beside ours in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
PEER = HERE / "peers" / ".venv"  # RecTools wants an older numpy than we do


def peer() -> list[str]:
    """The words that name the peer's Python; none, said aloud, where it cannot be installed."""
    wanted = HERE / "peers" / "rectools.txt"
    python, done = PEER / "bin" / "python", PEER / ".done"
    if not done.exists() or done.read_text() != wanted.read_text():
        print(f"== setting up the peer in {PEER} (once)", flush=True)
        venv.create(PEER, with_pip=True, clear=True)
        installed = subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", wanted], check=False)
        if installed.returncode:
            print("== RecTools cannot be installed here: only our own figures follow", flush=True)
            return []
        done.write_text(wanted.read_text())
    return ["--peer", str(python)]


def run(script: str, *words: str) -> None:
    print(f"\n== {script}", flush=True)
    subprocess.run([sys.executable, str(HERE / script), *words], check=True)


if __name__ == "__main__":
    run("ingest.py")
    run("serve.py", *peer())
    run("server.py", "--soak", "10", *peer())
