"""Reports a person reads: the leaderboard page of a training or a measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from penchant.core.errors import MissingExtra
from penchant.engine import _training_requests as tr
from penchant.engine._protocol import Outcome, basket_words, protocol_words
from penchant.engine._tags import TagsOutcome
from penchant.evaluation import render_report_html
from penchant.store import atomic_write

if TYPE_CHECKING:
    from penchant.engine._shop import Shop


def leaderboard_html(shop: Shop, outcome: Outcome, tags: TagsOutcome | None = None) -> str:
    """The page of one run of the protocol."""
    left_out = [f"{f.kind}: {f.note}" for f in outcome.fitted if f.note]
    full = outcome.full
    return render_report_html(
        title=f"{shop.config.name}: what people want next",
        protocol=protocol_words(outcome),
        board=outcome.board,
        curves={f.kind: f.curve for f in outcome.fitted},
        tags=tags.measured if tags else None,
        tag_source=tags.trained.source if tags and tags.trained else "",
        tag_note=(tags.report.note if tags and tags.report else None) or "",
        health=f"{full.num_events:,} events of {full.num_users:,} people; {full.num_items:,} items.",
        baskets={f.kind: f.baskets for f in outcome.fitted if f.baskets is not None},
        basket_words=basket_words(outcome) or "",
        notes=left_out,
    )


def write_training_report(shop: Shop, outcome: Outcome, report: tr.TrainReport, tags: TagsOutcome) -> None:
    """Keep the newest training's report in the shop, as JSON and, with the extra ``report``, as a page."""
    folder = shop.path / "reports"
    folder.mkdir(exist_ok=True)
    atomic_write(folder / "training.json", msgspec.json.format(msgspec.json.encode(report), indent=1))
    try:
        page = leaderboard_html(shop, outcome, tags)
    except MissingExtra as error:
        report.notes.append(str(error))
        return
    atomic_write(folder / "leaderboard.html", page.encode())
