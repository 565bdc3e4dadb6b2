"""What every size of the sequence model would cost this shop, before it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from penchant.core.errors import InputError
from penchant.engine import _training_requests as tr
from penchant.models import SIZES, SequenceConfig, sequence_costs

if TYPE_CHECKING:
    from penchant.engine._shop import Shop


def sizes(shop: Shop, request: tr.SizesRequest) -> tr.SizesReport:
    """Count the costs of every word on the dial.

    Raises:
        InputError: The shop has no catalogue and no number of items was given.
    """
    items = request.items or shop.store.catalog().num_rows
    if not items:
        raise InputError(
            "for how many items? the shop has no catalogue yet", hint="give items", path="$.items"
        )
    targets = request.targets or shop.store.status().events
    rows = []
    for name, size in SIZES.items():
        costs = sequence_costs(msgspec.convert({"size": name}, SequenceConfig), items)
        rows.append(
            tr.SizeRow(
                size=name,
                width=size.width,
                depth=size.depth,
                heads=size.heads,
                feedforward=size.feedforward,
                length=size.length,
                batch=size.batch,
                learning_rate=size.learning_rate,
                horizon=size.targets,
                parameters=costs.parameters,
                weights_mb=_mb(costs.weight_bytes),
                gradients_mb=_mb(costs.gradient_bytes),
                optimiser_mb=_mb(costs.optimiser_bytes),
                averages_mb=_mb(costs.average_bytes),
                activations_mb=_mb(costs.activation_bytes),
                training_mb=_mb(costs.training_bytes),
                mflop_per_target=round(costs.flops_per_target / 1e6, 3),
                tflop_per_epoch=round(costs.flops_per_target * targets / 1e12, 3),
            )
        )
    return tr.SizesReport(items=items, targets=targets, rows=rows)


def _mb(amount: int) -> float:
    return round(amount / 1e6, 1)
