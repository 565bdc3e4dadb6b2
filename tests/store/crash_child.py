"""Works on a shop until it is killed: by the parent at some moment, or by itself at a certain fsync.

Every acknowledgement is written to a file before the next step, so the parent knows what must be there.
"""

import os
import random
import signal
import sys
from pathlib import Path

from penchant.store import ShopStore, open_store
from penchant.testing._store import batch_of, event


def die_at_sync(number: int, name: str) -> None:
    """Kill this process when it syncs, for the n-th time, a file with this in its path."""
    real, done = os.fsync, 0

    def deadly(handle: int) -> None:
        nonlocal done
        done += name in os.readlink(f"/proc/self/fd/{handle}")
        if done == number:
            os.kill(os.getpid(), signal.SIGKILL)
        real(handle)

    os.fsync = deadly


def work(store: ShopStore, acks: Path, seed: int, steps: list[str], in_turn: bool) -> None:
    """Take 200 steps, writing down what was acknowledged."""
    rnd = random.Random(seed)
    number = 1_000_000 * (seed + 1)
    with open(acks, "a", buffering=1) as log:
        log.write("ready\n")
        for step in range(200):
            what = steps[step % len(steps)] if in_turn else rnd.choice(steps)
            events = [event(number + n, f"user-{rnd.randrange(30):05d}") for n in range(rnd.randrange(1, 60))]
            number += 100
            ids = ",".join(e.event_id for e in events)
            if what == "append":
                assert set(store.append(events)) <= {"stored", "erased"}
                log.write(f"append {ids}\n")
            elif what == "load":
                log.write(f"begin {ids}\n")
                store.load([batch_of(events[:20]), batch_of(events[20:], 20)], source="x")
                log.write(f"load {ids}\n")
            elif what == "erase":
                log.write("begin-erase user-00007\n")
                store.erase("user-00007")
                log.write("erased user-00007\n")
            else:
                store.compact()


if __name__ == "__main__":
    shop, acks, seed, die_at, steps = sys.argv[1:]
    opened = open_store(Path(shop))
    if die_at:
        number, name = die_at.split(":")
        die_at_sync(int(number), name)
    work(opened, Path(acks), int(seed), steps.split(","), in_turn=bool(die_at))
