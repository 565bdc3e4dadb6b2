"""What is computed of a size agrees with what is counted of the network itself."""

import numpy as np
import pytest

from penchant.core import SequenceBatch
from penchant.models import SIZES, Negatives, SequenceConfig, sequence_costs

torch = pytest.importorskip("torch")
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from penchant.models._sequence_torch import SequenceTransformer  # noqa: E402

SHAPES = [
    {"size": "tiny"},
    {"size": "small", "loss": "full"},
    {"size": "base", "interests": 3, "loss": "full"},
    {"size": "base", "depth": 3, "heads": 4, "feedforward": 100, "negatives": 300},
]


@pytest.fixture(params=SHAPES, ids=str)
def config(request):
    return SequenceConfig(**request.param)


def step_of(config, num_items, rows):
    """A step without padding, in which every event is followed by a target."""
    size, rng = config.build(), np.random.default_rng(0)
    shape = (rows, size.length)
    items = rng.integers(1, num_items + 1, shape)
    batch = SequenceBatch(
        item_BT=items,
        kind_BT=np.ones(shape, np.int64),
        gap_BT=np.ones(shape, np.float32),
        value_BT=np.ones(shape, np.float32),
        mask_BT=np.ones(shape, np.bool_),
        user_BF=np.zeros((rows, 0), np.float32),
        target_BT=np.roll(items, -1, 1),
    )
    full = config.loss == "full" or num_items <= 5000
    drawn = np.arange(1, size.negatives + 1)
    return batch, None if full else Negatives(drawn, np.zeros(len(drawn), np.float32))


@pytest.mark.parametrize("labels", [0, 7])
def test_parameters_are_counted_exactly(config, labels):
    bag_NL = np.r_[np.arange(51) % (labels + 1), labels].astype(np.int64)[:51, None] if labels else None
    network = SequenceTransformer(config, 50, bag_NL)
    found = sum(parameter.numel() for parameter in network.parameters())
    assert sequence_costs(config, 50, num_labels=labels).parameters == found


def test_operations_are_those_that_torch_counts(config):
    torch.manual_seed(0)
    network = SequenceTransformer(config, 6000)
    batch, negatives = step_of(config, 6000, rows=4)
    with FlopCounterMode(display=False) as counter:
        network.loss(batch, negatives).backward()
    found = counter.get_total_flops() / batch.target_BT.size
    assert sequence_costs(config, 6000).flops_per_target == pytest.approx(found, rel=0.02)


def test_activations_are_about_what_torch_keeps(config):
    torch.manual_seed(0)
    size = config.build()
    network = SequenceTransformer(config, 6000)
    batch, negatives = step_of(config, 6000, rows=4)
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = network.loss(batch, negatives)
    tables = 6001 * size.width * 4 if negatives is None else 0  # the gradient of the table, counted elsewhere
    found = (sum(kept.values()) - tables) / batch.target_BT.size
    loss.backward()
    assert sequence_costs(config, 6000).activation_bytes / size.batch == pytest.approx(found, rel=0.25)


def test_the_dial_reaches_from_a_laptop_to_a_billion():
    costs = [sequence_costs(SequenceConfig(size=name), 12_000) for name in SIZES]
    parameters = [cost.parameters for cost in costs]
    assert parameters == sorted(parameters)
    assert parameters[0] < 0.5e6
    assert parameters[-1] > 1e9
    for cost in costs:
        assert cost.training_bytes > 24 * cost.parameters
