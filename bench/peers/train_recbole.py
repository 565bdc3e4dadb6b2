"""RecBole's SASRec with cross-entropy, for ``train_speed.py``; runs in an environment with ``recbole.txt`` installed.

The model, its data set and its loader are RecBole's; the loop around them is the bare four lines of its trainer,
which leaves out what its logging costs. A batch of 256 is its fastest here (2,048 takes 1.4 times as long a target).
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

# Names that RecBole 1.2.1 uses and numpy 2 dropped.
DROPPED = {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_, "int": int, "float": float}
for name, kind in DROPPED.items():
    setattr(np, name, kind)

from leave_one_out import DEPTH, DROPOUT, HEADS, LENGTH, WIDTH, Clock, Data, arguments  # noqa: E402
from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.model.sequential_recommender import SASRec  # noqa: E402

WARM = 3


def write(folder: Path, data: Data) -> None:
    """RecBole's own form of file: training items, then two that its leave-one-out split takes off again."""
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for person, sequence in enumerate(data.train):
        whole = [*sequence, sequence[-1], sequence[-1]]
        lines += [f"u{person}\t{item}\t{place}" for place, item in enumerate(whole)]
    (folder / "set").mkdir()
    (folder / "set" / "set.inter").write_text("\n".join(lines) + "\n")


def main() -> None:
    words = arguments()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    data, clock = Data.read(words.data), Clock()
    settings = {
        "seed": words.seed,
        "reproducibility": True,
        "use_gpu": False,
        "state": "CRITICAL",
        "show_progress": False,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": LENGTH,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "train_neg_sample_args": None,
        "loss_type": "CE",
        "n_layers": DEPTH,
        "n_heads": HEADS,
        "hidden_size": WIDTH,
        "inner_size": 4 * WIDTH,
        "hidden_dropout_prob": DROPOUT,
        "attn_dropout_prob": DROPOUT,
        "train_batch_size": 256,
    }
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), data)
        config = Config(model="SASRec", dataset="set", config_dict={**settings, "data_path": name})
        dataset = create_dataset(config)
        torch.manual_seed(words.seed)
        loader, _, _ = data_preparation(config, dataset)
    model = SASRec(config, loader.dataset)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    number = np.zeros(data.num_items + 1, np.int64)  # RecBole's number of each item
    for item, own in dataset.field2token_id["item_id"].items():
        if item != "[PAD]":
            number[int(item)] = own

    def step(batch: object) -> int:
        optimiser.zero_grad()
        loss = model.calculate_loss(batch)
        loss.backward()
        optimiser.step()
        return len(batch)

    def scores() -> np.ndarray:
        model.eval()
        rows = []
        for person in data.people:
            own = number[data.train[person][-LENGTH:]]
            rows.append((np.pad(own, (0, LENGTH - len(own))), len(own)))
        batch = {
            "item_id_list": torch.from_numpy(np.stack([row for row, _ in rows])),
            "item_length": torch.tensor([length for _, length in rows]),
        }
        with torch.inference_mode():
            found_PN = model.full_sort_predict(batch).numpy()[:, number]
        model.train()
        return np.where(number == 0, -np.inf, found_PN)

    model.train()
    for _ in range(words.epochs or 1):
        batches = iter(loader)
        for index in range(len(loader) if words.epochs else WARM + words.steps):
            if not words.epochs and index < WARM:
                step(next(batches))
            else:
                clock.step(lambda: step(next(batches)))  # noqa: B023
        if words.epochs:
            clock.score(data.ndcg(data.best_unseen(scores())))
    clock.report()


if __name__ == "__main__":
    main()
