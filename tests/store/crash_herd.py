"""Works on one shop a seed, each in a process that is killed at some moment; the shops are for the parent to look at.

The libraries are loaded once: a killed process is a fork of this one.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from crash_child import work

from penchant.store import open_store


def live_and_die(folder: Path, seed: int) -> None:
    folder.mkdir()
    acks = folder / "acks"
    acks.touch()
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        work(open_store(folder / "shop"), acks, seed, ["append", "append", "load", "compact"], in_turn=False)
        os._exit(0)
    while not acks.stat().st_size:
        time.sleep(0.001)
    time.sleep(random.Random(seed).uniform(0.0, 0.25))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


if __name__ == "__main__":
    folder, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for seed in range(first, first + count):
        live_and_die(folder / str(seed), seed)
