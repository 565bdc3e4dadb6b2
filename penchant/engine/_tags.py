"""The interest tags of a shop: fitted with the recommenders, asked by ``profile``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import KIND_CODES, USER_KEY, Catalog, History, Progress, Run, Snapshot, Vocabulary
from penchant.core.errors import MissingExtra, ModelError
from penchant.data import live_sequences
from penchant.engine import _requests as rq
from penchant.engine import _training_requests as tr
from penchant.engine._model_settings import model_config, pick_device
from penchant.training import save_artifact

if TYPE_CHECKING:
    from penchant.engine._shop import Shop
    from penchant.evaluation import Classification
    from penchant.models import Tags, TrainedTags


@dataclass(frozen=True, eq=False)
class TagsOutcome:
    """What became of the tags in a training: an artifact with its report, or the reason why there is none."""

    artifact: str | None = None
    report: tr.TagReport | None = None
    trained: TrainedTags | None = None
    measured: dict[str, Any] = field(default_factory=dict)  # row name -> classification of the test
    notes: tuple[str, ...] = ()


def train_tags(
    shop: Shop, snapshot: Snapshot, seed: int, progress: Progress, device: str = "cpu"
) -> TagsOutcome:
    """Fit the tags and measure them beside the base rate; a shop without labels and categories has none."""
    from penchant.evaluation import classification_metrics
    from penchant.models import train_tags as fit

    progress("fitting interest tags", 0, 1, {})
    users = shop.store.users()
    try:
        trained = fit(
            snapshot,
            users if users.num_rows else None,
            model_config(shop, "tags"),  # type: ignore[arg-type]
            Run(seed=seed, device=pick_device(device), progress=progress),
        )
    except (ModelError, MissingExtra) as error:
        return TagsOutcome(notes=(f"no interest tags: {error}",))
    single = trained.model.softmax
    labels = trained.label_PC.argmax(axis=1) if single else trained.label_PC
    rows: dict[str, Any] = {"tags": trained.probability_PC, **trained.baselines}
    said = {"tags": trained.decision_PC, **trained.baseline_decisions}
    measured = {
        name: classification_metrics(
            probability, labels, classes=list(trained.names), decision_PC=said.get(name)
        )
        for name, probability in rows.items()
    }
    note = nothing_learned(measured, trained)
    artifact = None
    if note is None:
        artifact = save_artifact(
            shop.artifacts,
            trained.model,
            kind="tags",
            as_of=snapshot.as_of,
            metrics=measured["tags"].metrics,
            facts={"labels": trained.source, **trained.facts},
            fingerprint=snapshot.fingerprint,
            items=Vocabulary([]),
        )
    report = tr.TagReport(
        labels=trained.source,
        classes=list(trained.names),
        metrics=measured["tags"].metrics,
        base_rate=measured["base rate"].metrics,
        users=len(trained.subjects),
        note=note,
        base_rate_from_half=measured["base rate, from one half"].metrics
        if "base rate, from one half" in measured
        else {},
    )
    return TagsOutcome(None if artifact is None else artifact.id, report, trained, measured)


def nothing_learned(measured: Mapping[str, Classification], trained: TrainedTags) -> str | None:
    """Why tags are of no use on held-out people; None where they are of some.

    Log loss decides, for it judges the chances, which is what a profile shows. But where people were merely less
    active than before, low chances for everybody win by it: so at least one tag must also have been said rightly.
    """
    own, base = (measured[name].metrics["log_loss"].value for name in ("tags", "base rate"))
    if not trained.label_PC.any():
        why = "none of the tags came true, so nothing could be shown"
    elif own >= base:
        why = f"their log loss is {own:.4f}, no better than the {base:.4f} of the base rate"
    elif measured["tags"].metrics["F1 micro"].value == 0:
        why = "not one tag was said of a person whom it fitted"
    else:
        return None
    classes = len(trained.names)
    names = ", ".join(trained.names[:5]) + (", ..." if classes > 5 else "")
    return (
        f"interest tags learned nothing useful and are not used: on {len(trained.subjects):,} held-out people {why}. "
        f"There {'was 1 tag' if classes == 1 else f'were {classes:,} tags'} to tell ({names}) and "
        f"{trained.facts.get('trained_on', 0):,} examples to learn from; more people, a longer log, or a category "
        "level at which people differ more would help"
    )


def predict_person(shop: Shop, model: Tags, subject: str, events: pa.Table, k: int) -> list[rq.PredictedTag]:
    """The ``k`` tags the classifier gives a person first, by chance; empty where nothing is known of them."""
    users = shop.store.users()
    mine = users.filter(pc.equal(users[USER_KEY], subject)) if users.num_rows else users
    if not events.num_rows and not mine.num_rows:
        return []
    row = _features(shop, model, subject, events, mine)
    probability_C, order, evidence = model.likeliest(row, k)
    return [
        rq.PredictedTag(
            tag=model.names[c],
            probability=round(float(probability_C[c]), 4),
            base_rate=round(float(model.base_rate_C[c]), 4),
            because=[found.text for found in because],
        )
        for c, because in zip(order, evidence, strict=True)
    ]


def _features(shop: Shop, model: Tags, subject: str, events: pa.Table, mine: pa.Table) -> pa.Table:
    """One row of raw features, as of just after the shop's last event."""
    # The person's own items alone: a request cannot wait for the whole catalogue. Those that it lacks belong
    # to no category, but count as different items, as they did in training.
    own = pc.unique(events["item_id"].drop_null())
    catalog = shop.store.catalog()
    catalog = catalog.filter(pc.is_in(catalog["id"], value_set=own))
    items = Vocabulary(own)
    kinds = np.array([KIND_CODES.get(kind, 0) for kind in events["kind"].to_pylist()], np.uint8)
    value = events["value"]
    if model.view is not None and model.view.currency is not None:  # other money was missing in training
        foreign = pc.fill_null(pc.not_equal(events["currency"], model.view.currency), False)
        value = pc.if_else(foreign, pa.scalar(None, value.type), value)
    history = History(
        subject,
        events["ts"].to_numpy(),
        kinds,
        events["item_id"].to_pylist(),
        np.asarray(value.to_numpy(zero_copy_only=False), np.float32),
        [],
    )
    sequences = live_sequences([history], items, np.zeros((1, 0), np.float32))
    last = shop.store.last_ts() or 0
    attributes = mine.drop_columns([USER_KEY]) if mine.num_rows else None
    table: pa.Table = model.describe(
        sequences, items, Catalog(catalog), last + 1, attributes=attributes, rows_B=np.array([0])
    )
    return table
