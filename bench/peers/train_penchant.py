"""Penchant's sequence model set to be the SASRec of ``train_speed.py``: its own loop, its own network."""

from __future__ import annotations

import time

import numpy as np
import torch
from leave_one_out import DEPTH, DROPOUT, HEADS, LENGTH, WIDTH, Clock, Data, arguments

from penchant.core import KIND_CODES, SECOND, Run, Snapshot, Vocabulary
from penchant.data import sequence_batch
from penchant.models import SequenceConfig
from penchant.models._sequence_torch import SequenceTransformer  # noqa: PLC2701
from penchant.testing import snapshot_from_arrays
from penchant.training._loop import train_network  # noqa: PLC2701

SETTINGS = {
    "width": WIDTH,
    "depth": DEPTH,
    "heads": HEADS,
    "length": LENGTH,
    "dropout": DROPOUT,
    "loss": "full",
}


def snapshot_of(data: Data) -> Snapshot:
    """The sequences, a view a second."""
    length = np.array([len(sequence) for sequence in data.train])
    place = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    return snapshot_from_arrays(
        users=Vocabulary([f"{n:07d}" for n in range(len(length))]),
        items=Vocabulary([f"{n:07d}" for n in range(1, data.num_items + 1)]),
        row=np.repeat(np.arange(len(length)), length),
        item=np.concatenate(data.train),
        kind=np.full(length.sum(), KIND_CODES["view"], np.uint8),
        ts=1_700_000_000 * SECOND + place * SECOND,
    )


def main() -> None:
    words = arguments()
    data, clock = Data.read(words.data), Clock()
    snapshot = snapshot_of(data)
    epochs = words.epochs or 2  # where only time is asked for, the second epoch gives it
    config = SequenceConfig(size="small", epochs=epochs, patience=1000, **SETTINGS)
    started = time.process_time()
    spent = 0.0  # on scoring
    ends: list[float] = []

    def measure(network: SequenceTransformer) -> float:
        nonlocal spent
        begun = time.process_time()
        clock.seconds = begun - started - spent
        if not words.epochs:
            ends.append(clock.seconds)
            return 0.0
        with torch.inference_mode():
            batch = sequence_batch(snapshot, data.people, LENGTH)
            mean_BRD, _ = network.interests(batch)
            ndcg = data.ndcg(data.best_unseen((mean_BRD[:, 0] @ network.items().T).numpy()))
        clock.score(ndcg)
        spent += time.process_time() - begun
        return ndcg

    train_network(
        lambda: SequenceTransformer(config, data.num_items),
        snapshot,
        config,
        Run(seed=words.seed),
        measure,
    )
    clock.seconds = clock.seconds if words.epochs else ends[1] - ends[0]
    clock.targets = (words.epochs or 1) * sum(len(sequence) - 1 for sequence in data.train)
    length = np.array([len(sequence) for sequence in data.train])
    read = np.minimum(length - 1, LENGTH)
    clock.report(items=data.num_items, mean_length=float((read * read).sum() / read.sum()))


if __name__ == "__main__":
    main()
