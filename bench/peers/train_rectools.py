"""RecTools' SASRec with softmax, for ``train_speed.py``; runs in an environment with ``rectools.txt`` installed."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pandas as pd
import torch
from leave_one_out import DEPTH, DROPOUT, HEADS, LENGTH, WIDTH, Clock, Data, K, arguments
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

CLOCK = Clock()  # RecTools copies its trainer, callbacks and all: the clock must be one
WARM = 3  # steps before the clock starts where only some steps are timed


class Steps(Callback):
    """Times training steps, data loading between them included."""

    def __init__(self, warm: int) -> None:
        self.warm, self.since = warm, 0.0

    def on_train_epoch_start(self, trainer: Trainer, module: object) -> None:
        self.since = time.process_time()

    def on_train_batch_end(
        self, trainer: Trainer, module: object, outputs: object, batch: dict, index: int
    ) -> None:
        now = time.process_time()
        if index >= self.warm:
            CLOCK.add(now - self.since, int((batch["y"] > 0).sum()))
        self.since = time.process_time()


def main() -> None:
    words = arguments()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    seed_everything(words.seed)
    data = Data.read(words.data)
    length = [len(sequence) for sequence in data.train]
    frame = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(length)), length),
            Columns.Item: np.concatenate(data.train),
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp("2024-01-01")
            + pd.to_timedelta(np.concatenate([np.arange(n) for n in length]), unit="s"),
        }
    )
    dataset = Dataset.construct(frame)

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=words.epochs or 1,
            limit_train_batches=None if words.epochs else words.steps + WARM,
            callbacks=[Steps(0 if words.epochs else WARM)],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            logger=False,
            accelerator="cpu",
        )

    model = SASRecModel(
        n_factors=WIDTH,
        n_blocks=DEPTH,
        n_heads=HEADS,
        session_max_len=LENGTH,
        dropout_rate=DROPOUT,
        loss="softmax",
        epochs=words.epochs or 1,
        get_trainer_func=trainer,
    )
    for _ in range(words.epochs or 1):
        if words.epochs:
            model.fit_partial(dataset, min_epochs=1, max_epochs=1)
        else:
            model.fit(dataset)
            break
        best = model.recommend(data.people, dataset, k=K, filter_viewed=True)
        top_PK = np.zeros((len(data.people), K), np.int64)
        row = {person: number for number, person in enumerate(data.people)}
        for person, item, rank in zip(
            best[Columns.User], best[Columns.Item], best[Columns.Rank], strict=True
        ):
            top_PK[row[person], rank - 1] = item
        CLOCK.score(data.ndcg(top_PK))
    CLOCK.report()


if __name__ == "__main__":
    main()
