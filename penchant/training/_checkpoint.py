"""Resumable training state in one file: tensors and JSON, replaced atomically, never pickle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
from torch import Tensor, nn

from penchant.store import atomic_write
from penchant.training._optimiser import Optimiser
from penchant.training._shards import local

State = TypeVar("State", bound=msgspec.Struct)


@dataclass(frozen=True, eq=False)
class Nets:
    """All tensors of a run: the network, its running average, the best average so far, the optimiser."""

    network: nn.Module
    average: nn.Module
    best: dict[str, Tensor]
    optimiser: Optimiser


def save_checkpoint(place: Path, nets: Nets, state: msgspec.Struct) -> None:
    """Write weights, their average, the best ones, optimiser and ``state``.

    No generator is kept: the loop seeds it anew in every step.
    """
    from safetensors.torch import save

    tensors = {f"network.{k}": v for k, v in nets.network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in nets.average.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in nets.best.items()}
    tensors |= {f"optimiser.{k}": v for k, v in nets.optimiser.tensors().items()}
    place.parent.mkdir(parents=True, exist_ok=True)
    # A tensor may not stand twice in one file: the tied or shared ones are copied.
    copies = {k: local(v.detach()).cpu().contiguous().clone() for k, v in tensors.items()}
    atomic_write(place, save(copies, metadata={"state": msgspec.json.encode(state).decode()}))


def load_checkpoint(place: Path, nets: Nets, kind: type[State]) -> State | None:
    """Put everything back as it was; None when the file is of another shape or damaged: training starts anew."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(place, "pt") as file:
            state = msgspec.json.decode(file.metadata()["state"], type=kind)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, msgspec.DecodeError, msgspec.ValidationError):
        return None

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    weights = part("network.")
    own = nets.network.state_dict()
    if weights.keys() != own.keys() or any(weights[k].shape != local(own[k]).shape for k in own):
        return None
    for into, found in (
        (own, weights),
        (nets.average.state_dict(), part("average.")),
        (nets.best, part("best.")),
    ):
        for name, value in found.items():
            local(into[name]).copy_(value)
    nets.optimiser.restore(part("optimiser."))
    return state
