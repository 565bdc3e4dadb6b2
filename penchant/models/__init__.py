"""What people want: one file per architecture or baseline, all behind the ``Model`` and ``InterestModel`` seams.

Names load on first use; importing this package loads neither torch nor any other heavy library.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from penchant.core import Model, load_on_use
from penchant.core.errors import ModelError

if TYPE_CHECKING:
    from penchant.models._chat import GGUF, SMOLLM2, ChatModel, Endpoint, Said, gguf_path, tokens_at_most
    from penchant.models._content import Content, ContentNeighbours
    from penchant.models._counts import beginnings, target_counts
    from penchant.models._ease import EASE, EASEConfig
    from penchant.models._encoders import encoder_installed, encoder_kinds, load_encoder
    from penchant.models._factors import company_vectors
    from penchant.models._habits import Frequency, FrequencyConfig, Habits, HabitsConfig
    from penchant.models._ials import IALS, IALSConfig
    from penchant.models._index import (
        INDEX_ITEMS,
        ExactIndex,
        IndexReport,
        QuantizedIndex,
        best_allowed,
        best_of,
        choose_index,
    )
    from penchant.models._interest import InterestModel, Negatives
    from penchant.models._interest_map import (
        InterestMap,
        InterestsConfig,
        NextInterestTest,
        Taken,
        fit_interests,
        interests_taken,
    )
    from penchant.models._interest_names import spelled
    from penchant.models._interest_plans import (
        SYSTEM,
        WEIGHTS,
        PlanRefusedError,
        PlanTest,
        Wording,
        choose_weight,
        recent_sets,
        tilted,
    )
    from penchant.models._item_knn import ItemKNN, ItemKNNConfig
    from penchant.models._neighbours import NeighbourModel
    from penchant.models._popularity import (
        Popularity,
        PopularityConfig,
        RecentPopularity,
        RecentPopularityConfig,
        log_trend,
    )
    from penchant.models._readings import Reading, kinds_in, uphill
    from penchant.models._sequence import Sequence
    from penchant.models._sequence_config import FULL_SOFTMAX_ITEMS, SIZES, Blend, SequenceConfig, Size
    from penchant.models._sequence_costs import SequenceCosts, sequence_costs
    from penchant.models._tags import BehaviourView, TagEvidence, Tags, TagsConfig
    from penchant.models._tags_fit import fit_tags
    from penchant.models._tags_labels import labels_from_users, next_period_labels
    from penchant.models._tags_train import TrainedTags, train_tags
    from penchant.models._transitions import Transitions, TransitionsConfig
    from penchant.models._value import RankChance, expected_value

_LAZY = {
    "EASE": "_ease",
    "EASEConfig": "_ease",
    "FULL_SOFTMAX_ITEMS": "_sequence_config",
    "Frequency": "_habits",
    "FrequencyConfig": "_habits",
    "Habits": "_habits",
    "HabitsConfig": "_habits",
    "IALS": "_ials",
    "IALSConfig": "_ials",
    "BehaviourView": "_tags",
    "Blend": "_sequence_config",
    "Content": "_content",
    "ContentNeighbours": "_content",
    "ExactIndex": "_index",
    "INDEX_ITEMS": "_index",
    "IndexReport": "_index",
    "QuantizedIndex": "_index",
    "best_allowed": "_index",
    "best_of": "_index",
    "company_vectors": "_factors",
    "choose_index": "_index",
    "InterestModel": "_interest",
    "InterestMap": "_interest_map",
    "InterestsConfig": "_interest_map",
    "NextInterestTest": "_interest_map",
    "Taken": "_interest_map",
    "fit_interests": "_interest_map",
    "interests_taken": "_interest_map",
    "ChatModel": "_chat",
    "Endpoint": "_chat",
    "GGUF": "_chat",
    "SMOLLM2": "_chat",
    "Said": "_chat",
    "gguf_path": "_chat",
    "tokens_at_most": "_chat",
    "PlanRefusedError": "_interest_plans",
    "PlanTest": "_interest_plans",
    "SYSTEM": "_interest_plans",
    "WEIGHTS": "_interest_plans",
    "Wording": "_interest_plans",
    "tilted": "_interest_plans",
    "choose_weight": "_interest_plans",
    "recent_sets": "_interest_plans",
    "ItemKNN": "_item_knn",
    "ItemKNNConfig": "_item_knn",
    "Negatives": "_interest",
    "NeighbourModel": "_neighbours",
    "Popularity": "_popularity",
    "PopularityConfig": "_popularity",
    "RankChance": "_value",
    "RecentPopularity": "_popularity",
    "RecentPopularityConfig": "_popularity",
    "Reading": "_readings",
    "Sequence": "_sequence",
    "SequenceConfig": "_sequence_config",
    "SequenceCosts": "_sequence_costs",
    "SIZES": "_sequence_config",
    "Size": "_sequence_config",
    "TagEvidence": "_tags",
    "Tags": "_tags",
    "TagsConfig": "_tags",
    "TrainedTags": "_tags_train",
    "Transitions": "_transitions",
    "TransitionsConfig": "_transitions",
    "encoder_installed": "_encoders",
    "encoder_kinds": "_encoders",
    "expected_value": "_value",
    "fit_tags": "_tags_fit",
    "kinds_in": "_readings",
    "labels_from_users": "_tags_labels",
    "load_encoder": "_encoders",
    "beginnings": "_counts",
    "log_trend": "_popularity",
    "next_period_labels": "_tags_labels",
    "sequence_costs": "_sequence_costs",
    "spelled": "_interest_names",
    "target_counts": "_counts",
    "train_tags": "_tags_train",
    "uphill": "_readings",
}

__all__ = [
    "EASE",
    "FULL_SOFTMAX_ITEMS",
    "GGUF",
    "IALS",
    "INDEX_ITEMS",
    "SIZES",
    "SMOLLM2",
    "SYSTEM",
    "WEIGHTS",
    "BehaviourView",
    "Blend",
    "ChatModel",
    "Content",
    "ContentNeighbours",
    "EASEConfig",
    "Endpoint",
    "ExactIndex",
    "Frequency",
    "FrequencyConfig",
    "Habits",
    "HabitsConfig",
    "IALSConfig",
    "IndexReport",
    "InterestMap",
    "InterestModel",
    "InterestsConfig",
    "ItemKNN",
    "ItemKNNConfig",
    "Negatives",
    "NeighbourModel",
    "NextInterestTest",
    "PlanRefusedError",
    "PlanTest",
    "Popularity",
    "PopularityConfig",
    "QuantizedIndex",
    "RankChance",
    "Reading",
    "RecentPopularity",
    "RecentPopularityConfig",
    "Said",
    "Sequence",
    "SequenceConfig",
    "SequenceCosts",
    "Size",
    "TagEvidence",
    "Tags",
    "TagsConfig",
    "Taken",
    "TrainedTags",
    "Transitions",
    "TransitionsConfig",
    "Wording",
    "beginnings",
    "best_allowed",
    "best_of",
    "choose_index",
    "choose_weight",
    "company_vectors",
    "encoder_installed",
    "encoder_kinds",
    "expected_value",
    "fit_interests",
    "fit_tags",
    "gguf_path",
    "interests_taken",
    "kinds_in",
    "labels_from_users",
    "load_encoder",
    "log_trend",
    "model_kinds",
    "next_period_labels",
    "recent_sets",
    "sequence_costs",
    "spelled",
    "target_counts",
    "tilted",
    "tokens_at_most",
    "train_tags",
    "uphill",
]


@cache
def model_kinds() -> dict[str, type[Model]]:
    """All installed kinds of model: the entry points of the group ``penchant.models``, by name.

    Raises:
        ModelError: Two packages claim the same name, or one cannot be imported: the message names it.

    Example:
        >>> "transitions" in model_kinds()
        True
    """
    found: dict[str, type[Model]] = {}
    for point in entry_points(group="penchant.models"):
        origin = point.dist.name if point.dist else point.value
        if point.name in found:
            raise ModelError(
                "two packages bring a model of this name", value=point.name, hint=f"remove {origin}"
            )
        try:
            found[point.name] = point.load()
        except (ImportError, AttributeError) as error:
            raise ModelError(
                f"the model {point.name} cannot be loaded: {error}",
                value=point.value,
                hint=f"remove {origin}",
            ) from error
    return found


__getattr__ = load_on_use(__name__, _LAZY)
