"""The trained encoder as an ONNX graph: drawn once for each shape of network, then only given new weights.

Drawing takes the exporter seconds, whatever the size of the network; writing weights into a graph takes milliseconds.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from penchant.core import SequenceBatch
from penchant.models import SequenceConfig

if TYPE_CHECKING:
    from torch import nn

ITEM_WEIGHT = "item.weight"  # of the network; the served model keeps it as its item vectors
_OF_NETWORK = "network."  # how the names of weights begin in a graph
_Graph = npt.NDArray[np.uint8]
_Shapes = frozenset[tuple[str, tuple[int, ...]]]
_drawn: dict[_Shapes, _Graph] = {}  # graphs of this process


def encoder_weights(network: nn.Module) -> dict[str, npt.NDArray[Any]]:
    """All weights of a network but its item vectors, by name."""
    return {
        name: tensor.detach().cpu().numpy().copy()
        for name, tensor in network.state_dict().items()
        if name != ITEM_WEIGHT
    }


def encoder_graphs(
    network: nn.Module,
    config: SequenceConfig,
    weights: Mapping[str, npt.NDArray[Any]],
    like: _Graph | None = None,
) -> Iterator[_Graph]:
    """Graphs of an encoder, the cheapest first: one that is like it, one drawn before, one drawn now.

    Weights of the same names and shapes say much, but not all: the caller checks each graph against the network.

    Args:
        network: What was trained, its item vectors folded.
        config: Its settings.
        weights: Its weights, as ``encoder_weights`` gives them.
        like: The graph of a model it was made from.
    """
    shapes = frozenset((name, array.shape) for name, array in weights.items())
    for graph in (like, _drawn.get(shapes)):
        filled = None if graph is None else with_weights(graph, weights)
        if filled is not None:
            yield filled
    _drawn[shapes] = _draw(network, config)
    filled = with_weights(_drawn[shapes], weights)
    assert filled is not None, "the exporter has renamed the weights"
    yield filled


def with_weights(graph: _Graph, weights: Mapping[str, npt.NDArray[Any]]) -> _Graph | None:
    """The same graph with other weights; None where its weights have other names or shapes."""
    import onnx

    model = onnx.load_from_string(graph.tobytes())
    slots = {
        w.name.removeprefix(_OF_NETWORK): w for w in model.graph.initializer if w.name.startswith(_OF_NETWORK)
    }
    if {name: tuple(slot.dims) for name, slot in slots.items()} != {n: a.shape for n, a in weights.items()}:
        return None
    for name, slot in slots.items():
        slot.CopyFrom(onnx.numpy_helper.from_array(weights[name], slot.name))
    return np.frombuffer(model.SerializeToString(deterministic=True), np.uint8)


def sample_batch(num_items: int, config: SequenceConfig) -> SequenceBatch:
    """A few made-up histories of different lengths, one of them empty, asked about different kinds of events."""
    rng = np.random.default_rng(0)
    width = max(3, min(config.build().length, 9))
    codes = (0, *config.asked_codes)
    mask = np.arange(width) < np.array([[0], [1], [width]])
    return SequenceBatch(
        item_BT=rng.integers(1, num_items + 1, (3, width)) * mask,
        kind_BT=rng.integers(1, 17, (3, width)) * mask,
        gap_BT=(rng.random((3, width)) * 12 * mask).astype(np.float32),
        value_BT=(rng.random((3, width)) * 8 * mask).astype(np.float32),
        mask_BT=mask,
        user_BF=np.zeros((3, 0), np.float32),
        asked_B=np.array([0, codes[-1], codes[len(codes) // 2]], np.int64),
    )


def _draw(network: nn.Module, config: SequenceConfig) -> _Graph:
    """Let the exporter write the graph, with free batch and length. It does not fold: every weight keeps its name."""
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(
            self, vec_BTD: Any, kind_BT: Any, gap_BT: Any, value_BT: Any, length_B: Any, asked_B: Any = None
        ) -> Any:
            return self.network.encode(vec_BTD, kind_BT, gap_BT, value_BT, length_B, asked_B)  # type: ignore[operator]

    item_ND = network.items().detach()  # type: ignore[operator]
    batch = sample_batch(len(item_ND) - 1, config)
    of_rows = {"length_B": batch.length_B.astype(np.int64), "asked_B": batch.asked_B}
    if not config.asked:
        del of_rows["asked_B"]
    arrays = (batch.kind_BT, batch.gap_BT, batch.value_BT, *of_rows.values())
    vec_BTD = item_ND[torch.from_numpy(batch.item_BT).to(item_ND.device)]
    example = (vec_BTD, *(torch.from_numpy(np.ascontiguousarray(a)).to(item_ND.device) for a in arrays))
    rows, width = torch.export.Dim("rows"), torch.export.Dim("width", min=1, max=config.build().length)
    shapes = {name: {0: rows, 1: width} for name in ("vec_BTD", "kind_BT", "gap_BT", "value_BT")}
    shapes |= {name: {0: rows} for name in of_rows}
    network.eval()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        for name in ("torch.onnx", "onnxscript", "onnx_ir"):
            logging.getLogger(name).setLevel(logging.ERROR)
        path = Path(folder) / "encoder.onnx"
        program = torch.onnx.export(
            Encoder().eval(),
            example,
            input_names=list(shapes),
            output_names=["mean_BRD", "spread_BR"],
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
            optimize=False,
        )
        assert program is not None
        program.save(str(path), external_data=False)
        return _without_origin(path.read_bytes())


def _without_origin(graph: bytes) -> _Graph:
    """The graph without the source lines that the exporter notes: the same model has the same bytes anywhere."""
    import onnx

    model = onnx.load_from_string(graph)
    inner = [node for function in model.functions for node in function.node]
    main = model.graph
    for part in (model, main, *main.node, *main.value_info, *main.initializer, *model.functions, *inner):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return np.frombuffer(model.SerializeToString(deterministic=True), np.uint8)
