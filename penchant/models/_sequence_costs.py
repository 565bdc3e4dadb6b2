"""What a size of the sequence model costs to train, counted from its settings: no torch, nothing is run.

Letters: D width, L blocks, H heads, F hidden units of the feed-forward layer, T events looked back on, N items, R
interests, C scores a target is compared by. A parameter is a float32; training keeps its weight, its gradient,
AdamW's two moments, the running average that is judged and the best average so far: 24 bytes.
"""

from __future__ import annotations

import msgspec

from penchant.models._sequence_config import FULL_SOFTMAX_ITEMS, KIND_ROWS, NUM_GAPS, SequenceConfig

_FLOAT = 4  # bytes


class SequenceCosts(msgspec.Struct, frozen=True):
    """Numbers, bytes and floating point operations of one training."""

    parameters: int
    table_parameters: int  # of them in the table of items
    weight_bytes: int
    gradient_bytes: int
    optimiser_bytes: int
    average_bytes: int  # the running average and the best one
    activation_bytes: int  # what one step keeps for its backward pass, with histories of full length
    flops_per_target: float  # forward and backward, multiplications and additions counted apart

    @property
    def training_bytes(self) -> int:
        """All that one process holds at once, but for the data and torch itself."""
        held = (self.weight_bytes, self.gradient_bytes, self.optimiser_bytes, self.average_bytes)
        return sum(held) + self.activation_bytes


def sequence_costs(
    config: SequenceConfig, num_items: int, *, num_labels: int = 0, length: float | None = None
) -> SequenceCosts:
    """Count the costs of a configuration.

    Args:
        config: The settings.
        num_items: N.
        num_labels: Different brands, categories and labels of the catalogue, where the model takes them in.
        length: Mean length of the histories that are read; None = the longest, T. Attention costs by it.

    Example:
        >>> small = sequence_costs(SequenceConfig(size="small"), num_items=12_000)
        >>> small.parameters, round(small.flops_per_target / 1e6, 1)
        (817266, 0.7)
    """
    size = config.build()
    d, depth, f, r = size.width, size.depth, size.feedforward, config.interests
    seen = size.length if length is None else length
    table = (num_items + 1) * d
    small_tables = (KIND_ROWS + NUM_GAPS + 1 + (num_labels + 1 if num_labels else 0)) * d
    matrices = 4 * d * d + 3 * d * f  # of one block: queries, keys, values, out; up, gate, down
    block = matrices + 4 * d + size.heads * size.length  # two norms, and the bias by distance
    parameters = table + small_tables + depth * block + 2 * d + r * d * d

    full = config.loss == "full" or (config.loss == "auto" and num_items <= FULL_SOFTMAX_ITEMS)
    compared = num_items if full else size.negatives + 1
    products = depth * (matrices + 2 * seen * d) + d + r * d * d + r * d * compared
    # Kept for the backward pass, in floats a target: inputs and outputs of every product and norm, the attention's
    # chances, and one byte for each dropout. Drawn negatives keep their scores; the full softmax keeps none.
    kept = depth * (11 * d + 4 * f + 2 * size.heads * seen) + 6 * d + 2 * r * d
    kept += 0 if full else 3 * compared
    return SequenceCosts(
        parameters=parameters,
        table_parameters=table,
        weight_bytes=_FLOAT * parameters,
        gradient_bytes=_FLOAT * parameters,
        optimiser_bytes=2 * _FLOAT * parameters,
        average_bytes=2 * _FLOAT * parameters,
        activation_bytes=round(_FLOAT * kept * size.batch),
        flops_per_target=3.0 * 2.0 * products,
    )
