"""Two shops for one server, each with a person and an item of its own."""

from __future__ import annotations

from pathlib import Path

from penchant import Engine


def tenants(folder: Path) -> dict[str, Engine]:
    """Open engines of a shop of tea and one of shoes; whom and what they know is ``of-NAME`` and ``item-NAME``."""
    engines = {name: Engine.open(folder / name) for name in ("tea", "shoes")}
    for name, engine in engines.items():
        engine.init(name=name)
        engine.observe(events=[{"kind": "view", "user_id": f"of-{name}", "item_id": f"item-{name}"}])
    return engines
