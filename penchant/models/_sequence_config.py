"""The sequence transformer's one dial and its few other settings."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from penchant.core import KIND_CODES, Ints, Target, TargetKind
from penchant.core.errors import InputError
from penchant.models._habits import Weights
from penchant.models._readings import Readings

Count = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
SizeName = Literal["auto", "tiny", "small", "base", "large", "huge", "giant", "titan"]
LossName = Literal["auto", "full", "sampled"]

# Rows of the table of kinds: to the last one that may stand in a history; kinds that came later move no weight.
KIND_ROWS = KIND_CODES["signup"] + 1
NUM_GAPS = 40  # half-unit steps of log seconds: the last one begins at nine years
FULL_SOFTMAX_ITEMS = 5_000  # above it, "auto" draws negatives: as accurate there, at a third of the cost


class Size(msgspec.Struct, frozen=True):
    """What one word on the dial sets together."""

    width: int
    depth: int
    heads: int
    feedforward: int  # hidden units of a block's gated layer
    length: int  # events the encoder looks back on
    batch: int  # targets in one step
    negatives: int  # uniform negatives in one step, when they are drawn
    learning_rate: float
    targets: int  # horizon: targets seen in all, at most


SIZES: dict[str, Size] = {
    "tiny": Size(16, 1, 1, 32, 20, 512, 128, 5e-3, 200_000),
    "small": Size(64, 1, 1, 128, 50, 1536, 1024, 2e-3, 20_000_000),
    "base": Size(128, 2, 2, 256, 50, 2048, 2048, 1e-3, 10_000_000),
    "large": Size(256, 4, 4, 512, 100, 4096, 4096, 7e-4, 100_000_000),
    "huge": Size(512, 8, 8, 1024, 200, 8192, 8192, 5e-4, 1_000_000_000),
    "giant": Size(1024, 16, 16, 2752, 500, 16384, 16384, 3e-4, 10_000_000_000),
    "titan": Size(2048, 24, 16, 5504, 1000, 32768, 16384, 2e-4, 100_000_000_000),
}


# "auto" is "small" with a longer memory where more than this share of the targets has more events before it
# than "small" reads, and a second block where there are also enough of them to learn it.
_LONG_SHARE, _LONG, _MANY_TARGETS = 0.25, 200, 300_000
# Where items have many events each, there is less to overfit, and less is dropped out.
_DENSE, _DENSE_DROPOUT, _DROPOUT = 100, 0.2, 0.4


class Blend(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the counts weigh beside the network, for one question; the names are those of ``SequenceConfig``."""

    counts_weight: NotNegative
    neighbours_weight: NotNegative
    counts_floor: Annotated[float, Meta(gt=0)]
    repeats_weight: NotNegative
    own_weight: NotNegative


class SequenceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the sequence model; None lets the size, the data or validation decide.

    A fitted model's own config has every None replaced by what was used or found, so that fitting again
    with it, on more data and without validation, repeats the recipe.

    Example:
        >>> SequenceConfig().build().width
        64
    """

    size: SizeName = "auto"
    loss: LossName = "auto"
    interests: Annotated[int, Meta(ge=1, le=64)] = 1
    dropout: Annotated[float, Meta(ge=0, lt=1)] | None = None
    weight_decay: NotNegative = 0.01
    width: Count | None = None
    depth: Count | None = None
    heads: Count | None = None
    feedforward: Count | None = None
    length: Count | None = None
    batch: Count | None = None  # targets in one step; None: the size's, more over a large catalogue
    negatives: Annotated[int, Meta(ge=2)] | None = None
    learning_rate: Annotated[float, Meta(gt=0)] | None = None
    targets: Count | None = None  # horizon
    epochs: Annotated[float, Meta(ge=1)] | None = None  # None: the horizon, or where validation was best
    patience: Count = 4  # validations without a new best before stopping
    asked: tuple[TargetKind, ...] | None = None  # kinds it can be asked about; None: all that happen often
    attributes: bool = True  # item vectors take in brand, category and labels, where the catalogue has them
    counts: bool = True  # add transitions, neighbours and the own history to the score
    transitions_decay: Share | None = None
    neighbours_decay: Share | None = None
    own_decay: Share | None = None
    habits: Weights | None = None  # of the facts that habits weigh; None learns them from the log
    trend_days: Annotated[float, Meta(gt=0)] | None = None  # half-life of what counts as of late
    counts_weight: NotNegative | None = None
    neighbours_weight: NotNegative | None = None
    counts_floor: Annotated[float, Meta(gt=0)] | None = None
    repeats_weight: NotNegative | None = None
    trend_weight: NotNegative | None = None
    content: bool = True  # score takes in what items say and show, where the catalogue's content was encoded
    content_decay: Share | None = None
    content_weight: NotNegative | None = None  # of content neighbours, for items that somebody has met
    unmet_content_weight: NotNegative | None = None  # and for those that nobody has, beside what they borrow
    # The chance of an item that nobody has met, beside that of the items nearest to it in content; 0: it has none.
    lending: NotNegative | None = None
    own_weight: NotNegative | None = None  # None: found where the log has several kinds of events
    transitions_readings: Readings | None = None
    neighbours_readings: Readings | None = None
    own_readings: Readings | None = None
    blends: dict[Target, Blend] = {}  # of questions that have one of their own

    @property
    def counts_floor_or_default(self) -> float:
        """Where the logarithm of the counts begins to bend."""
        return 0.1 if self.counts_floor is None else self.counts_floor

    def blend(self, target: Target) -> Blend:
        """What the counts weigh when asked for one kind of event."""
        plain = Blend(
            self.counts_weight or 0.0,
            self.neighbours_weight or 0.0,
            self.counts_floor_or_default,
            self.repeats_weight or 0.0,
            self.own_weight or 0.0,
        )
        return self.blends.get(target, plain)

    @property
    def asked_codes(self) -> tuple[int, ...]:
        """Codes of the kinds that it can be asked about."""
        return tuple(KIND_CODES[kind] for kind in self.asked or ())

    @property
    def dropout_or_default(self) -> float:
        """The share of every vector that training leaves out."""
        return _DROPOUT if self.dropout is None else self.dropout

    def for_histories(self, length_U: Ints, num_items: int) -> SequenceConfig:
        """The same with what is left open decided by the lengths of the histories, (U,), and the catalogue.

        Example:
            >>> config = SequenceConfig().for_histories(np.full(5_000, 150), num_items=10_000)
            >>> config.length, config.dropout
            (200, 0.4)
        """
        targets = int(length_U.sum())
        if self.dropout is None:
            dense = targets > _DENSE * num_items
            self = msgspec.structs.replace(self, dropout=_DENSE_DROPOUT if dense else _DROPOUT)
        if self.size != "auto":
            return self
        memory = SIZES["small"].length
        long = np.maximum(length_U - memory, 0).sum() > _LONG_SHARE * targets
        return msgspec.structs.replace(
            self,
            length=self.length or (_LONG if long else memory),
            depth=self.depth or (2 if long and targets >= _MANY_TARGETS else 1),
        )

    def build(self) -> Size:
        """The size with this config's own values in place of the dial's."""
        size = SIZES["small" if self.size == "auto" else self.size]
        own = {name: getattr(self, name) for name in Size.__struct_fields__ if hasattr(self, name)}
        size = msgspec.structs.replace(
            size, **{name: value for name, value in own.items() if value is not None}
        )
        if size.width % size.heads:
            raise InputError("width must be a multiple of heads", value=f"{size.width}, {size.heads}")
        return size
