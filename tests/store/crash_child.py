"""Works on a shop until it is killed: by the parent at some moment, or by itself at its n-th fsync.

Every acknowledgement is written to a file before the next step, so the parent knows what must be there.
"""

import os
import random
import signal
import sys
from pathlib import Path

from penchant.store import open_store
from penchant.testing._store import batch_of, event

path, acks, seed, die_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
steps = sys.argv[5].split(",") if len(sys.argv) > 5 else ["append", "load", "compact"]
rnd = random.Random(seed)
store = open_store(path)
number = 1_000_000 * (seed + 1)

syncs = 0
real_fsync = os.fsync


def deadly_fsync(handle: int) -> None:
    global syncs
    syncs += 1
    if syncs == die_at:
        os.kill(os.getpid(), signal.SIGKILL)
    real_fsync(handle)


os.fsync = deadly_fsync
log = open(acks, "a", buffering=1)  # noqa: SIM115 - open until the end
log.write("ready\n")
for step in range(200):
    what = steps[step % len(steps)] if die_at else rnd.choice(steps)
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
        log.write("erase user-00007\n")
    else:
        store.compact()
