"""Search: what the catalogue's texts say of a query, reranked by what the person is likely to want."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import rankdata

from penchant.core import Encoder, Floats, History, Ints
from penchant.core.errors import InputError
from penchant.data import ContentStore
from penchant.engine import _requests as rq
from penchant.engine._answer_ids import BY_TEXT
from penchant.engine._content import item_contents
from penchant.engine._logged import NOT_LOGGED, log_list
from penchant.engine._offer import allowed, judged
from penchant.engine._people import asking, history_of
from penchant.engine._scenarios import as_asked
from penchant.engine._search_index import check_query
from penchant.engine._serving import Ranker, Serving
from penchant.models import best_of, encoder_installed, load_encoder

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

_RERANKED = 200  # best by their texts that the person's interests reorder
_MEANING, _NEAR = 0.5, 0.3  # weight of a text that is near in meaning, and from which cosine it is


class Meanings:
    """The vectors of a catalogue's texts that were encoded in training, and the encoder that made them.

    Args:
        encoder: Encodes the query.
        vector_ND: (N + 1, D) of the items, zeros where a text was not encoded.
    """

    def __init__(self, encoder: Encoder, vector_ND: npt.NDArray[np.float32]) -> None:
        known_N = np.asarray(vector_ND.any(axis=1))
        # Encoders put texts into a narrow cone: what tells them apart is seen from its middle.
        self._mean_D = vector_ND[known_N].mean(axis=0)
        centred_ND = np.where(known_N[:, None], vector_ND - self._mean_D, 0.0)
        self._unit_ND = centred_ND / np.maximum(np.linalg.norm(centred_ND, axis=1, keepdims=True), 1e-9)
        self._encoder = encoder

    def near(self, query: str) -> Floats:
        """Cosine of every item's text with the query, (N + 1,)."""
        vector_D = np.asarray(self._encoder.encode([query])[0]) - self._mean_D
        return np.asarray(self._unit_ND @ (vector_D / max(float(np.linalg.norm(vector_D)), 1e-9)))


def meanings(shop: Shop, table: pa.Table, *, heavy: bool) -> Meanings | None:
    """The meanings of a catalogue, where training encoded it and the encoder is installed.

    Args:
        table: The catalogue in the order of a vocabulary; row 0 is no item.
        heavy: Whether an encoder that needs torch may be loaded.
    """
    for name in ("e5", "minilm") if heavy else ("e5",):
        if not (shop.content / "text").is_dir() or not encoder_installed(name):
            continue
        encoder = load_encoder(name, "text")
        folder = shop.content / f"text/{encoder.id}"
        if folder.is_dir():
            found_ND = ContentStore(folder).find(item_contents(shop, table.slice(1), "text"))
            if found_ND.any():
                return Meanings(encoder, np.concatenate([np.zeros_like(found_ND[:1]), found_ND]))
    return None


def search(shop: Shop, serving: Serving, request: rq.SearchRequest) -> rq.SearchReport:
    """Find items by their texts, and put first what the person is likely to want."""
    words = check_query(request.query)
    subject = asking(shop, request.user_id, request.anonymous_id)
    ranker = serving.ranker
    asked = as_asked(
        shop, rq.RecommendRequest(filters=request.filters, scenario=request.scenario, k=request.k)
    )
    history = history_of(shop, subject)
    allowed_N = allowed(ranker, asked)
    verdict = judged(shop, ranker, asked, history)
    if verdict is not None:
        allowed_N &= verdict.kept_N
    found = ranker.shelf.search.find(words)
    text_N = found.score_N
    meant = None if request.semantic == "off" else serving.meanings(heavy=request.semantic == "on")
    if meant is None and request.semantic == "on":
        hint = (
            "install penchant[text], train once so that the catalogue is encoded, or ask with semantic=auto"
        )
        raise InputError("no texts of this catalogue are encoded", hint=hint, path="$.semantic")
    if meant is not None:
        near_N = meant.near(request.query)
        text_N += _MEANING * np.where(near_N > _NEAR, near_N, 0.0)
    text_N[~allowed_N] = 0.0
    text_N /= max(float(text_N.max(initial=0.0)), 1e-9)
    item_K, text_K = best_of(np.flatnonzero(text_N), text_N[text_N > 0], _RERANKED)
    item_K, text_K = item_K.astype(np.int64), text_K.astype(np.float64)
    liked_K = _liking(ranker, history, item_K)
    total_K = text_K + request.personal * liked_K
    if verdict is not None and verdict.worth is not None:
        total_K = verdict.worth.of(item_K).applied(total_K, np.zeros(len(item_K)))[0]
    order = np.argsort(-total_K, kind="stable")[: asked.k]
    note = ranker.note
    if not len(order):
        note = "nothing that may be shown has these words" + (" and meets the filters" if verdict else "")
    settings = [f"{request.personal:g}", request.semantic, *asked.filters, *asked.rules]
    recommendation_id, logged = log_list(
        serving,
        ranker,
        BY_TEXT,
        settings,
        item_K,
        total_K,
        order,
        subject=subject,
        surface=request.scenario or "search",
    )
    return rq.SearchReport(
        query=request.query,
        recommendation_id=recommendation_id,
        items=[
            rq.SearchItem(
                item_id=ranker.items.id(int(item_K[at])),
                score=float(total_K[at]),
                text=float(text_K[at]),
                interest=float(liked_K[at]),
                title=ranker.shelf.titles[int(item_K[at])],
            )
            for at in order
        ],
        found=len(item_K),
        corrected=found.corrected,
        model_id=ranker.model_id,
        degraded=ranker.degraded or not logged,
        note=note if logged else NOT_LOGGED,
    )


def _liking(ranker: Ranker, history: History, item_K: Ints) -> Floats:
    """How each item stands among those found by what the model says of the person: 0 (last) to 1 (first)."""
    if len(item_K) < 2:
        return np.zeros(len(item_K))
    only_N = np.zeros(len(ranker.items) + 1, np.bool_)
    only_N[item_K] = True
    liked = ranker.candidates(history, only_N, len(item_K), "any", by_value=False)
    place = np.full(len(ranker.items) + 1, 0.0)
    place[liked.item_N] = rankdata(liked.mean_N) / len(item_K)
    return np.asarray(place[item_K])
