"""Scenarios: what a place in the shop (home, cart, e-mail) asks for, written down once in ``shop.toml``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from penchant.core import Noun, SeenRule, Target
from penchant.core.errors import NotFound
from penchant.engine._expression import parse
from penchant.engine._guide import Dial
from penchant.engine._requests import DEFAULT_K, K, Objective, RecommendRequest, ShelfName
from penchant.engine._shelves import with_shelf

if TYPE_CHECKING:
    from penchant.engine._shop import Shop


class ScenarioSettings(Noun, frozen=True):
    """One scenario: a ``[scenarios.NAME]`` table. A request that names it needs to say nothing of this again."""

    k: Annotated[K, Meta(description="how many items, unless the request says")] = DEFAULT_K
    shelf: Annotated[ShelfName, Meta(description="which row of items")] = "personal"
    filters: Annotated[
        list[str], Meta(description="conditions that all must hold, beside those of the request")
    ] = []
    rules: Annotated[
        list[str],
        Meta(description="rules: only, exclude, boost, add, bury, pin; beside those of the request"),
    ] = []
    target: Annotated[Target | None, Meta(description="predict the next event of this kind")] = None
    objective: Annotated[Objective | None, Meta(description="interest or value")] = None
    seen: Annotated[SeenRule, Meta(description="may answers repeat items the person had?")] = "auto"

    mmr: Annotated[
        Dial | None, Meta(description="diversity by marginal relevance; none: as `[rerank]` says")
    ] = None
    dpp: Annotated[Dial | None, Meta(description="diversity by determinants; not together with mmr")] = None
    calibration: Annotated[Dial | None, Meta(description="interests in the person's own proportions")] = None

    def __post_init__(self) -> None:
        """Read every filter and rule: a mistake in one is found when the shop opens, not when somebody asks."""
        for at, text in enumerate(self.filters):
            parse(text, "expression", f"$.filters[{at}]")
        for at, text in enumerate(self.rules):
            parse(text, "rule", f"$.rules[{at}]")


def as_asked(shop: Shop, request: RecommendRequest) -> RecommendRequest:
    """A request with what its scenario says filled in where it says nothing itself; filters and rules add up.

    Raises:
        NotFound: There is no such scenario.
    """
    if request.scenario is None:
        return with_shelf(msgspec.structs.replace(request, k=request.k or DEFAULT_K))
    found = shop.config.scenarios.get(request.scenario)
    if found is None:
        known = ", ".join(sorted(shop.config.scenarios)) or "none yet"
        raise NotFound(
            "no such scenario",
            value=request.scenario,
            hint=f"write [scenarios.NAME] in shop.toml; there are: {known}",
            path="$.scenario",
        )
    filled = msgspec.structs.replace(
        request,
        k=request.k or found.k,
        filters=[*found.filters, *request.filters],
        rules=[*found.rules, *request.rules],
        target=request.target or found.target,
        objective=request.objective or found.objective,
        seen=found.seen if request.seen == "auto" else request.seen,
        surface=request.scenario if request.surface == "default" else request.surface,
        shelf=found.shelf if request.shelf == "personal" else request.shelf,
        mmr=found.mmr if request.mmr is None else request.mmr,
        dpp=found.dpp if request.dpp is None else request.dpp,
        calibration=found.calibration if request.calibration is None else request.calibration,
    )
    return with_shelf(filled)
