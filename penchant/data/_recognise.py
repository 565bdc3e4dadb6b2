"""Whose log is this? Told by the columns alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from penchant.core.errors import UnknownColumns
from penchant.data._columns import Notes
from penchant.data._dialects import DIALECTS, Dialect, Expand, catalog_mapping, draft_objects, users_mapping
from penchant.data._draft import ROW_NUMBER, Draft
from penchant.data._mapping import Mapping, What
from penchant.data._proposal import propose
from penchant.data._settings import Settings
from penchant.data._source import Source
from penchant.data._source_chunks import Chunk


@dataclass(frozen=True)
class Recognised:
    """What a file holds and how to read it.

    ``dialect`` is the name of a known form, or ``mapping:NAME`` when a mapping of the shop applies.
    ``ignored`` are the columns that will be left out.
    """

    what: What
    dialect: str
    mapping: Mapping
    ignored: list[str] = field(default_factory=list)
    expand: Expand | None = None  # for nested forms: one object to its events

    def drafter(self, settings: Settings, notes: Notes) -> Callable[[Chunk], pa.Table]:
        """A function from chunks to drafts, for these settings."""
        if self.expand is not None:
            expand = self.expand
            return lambda chunk: draft_objects(chunk, expand, settings, notes, self.mapping.props)
        return Draft(self.mapping, settings, notes).table


def recognise(
    source: Source,
    mappings: Sequence[Mapping] = (),
    *,
    what: What | None = None,
    settings: Settings | None = None,
) -> Recognised:
    """Tell what a file holds by its columns.

    The shop's own mappings come first, in their order; then the known dialects.

    Args:
        source: The opened file.
        mappings: The ``[[mapping]]`` tables of the shop.
        what: What is expected. With "events" a table of users or a catalogue is told too, when it is one;
            "catalog" and "users" look for nothing else.
        settings: Its ``props`` are kept from known forms too.

    Raises:
        UnknownColumns: Nothing fits; ``proposal`` is a mapping to look at, to edit and to add to ``shop.toml``.
    """
    props = (settings or Settings()).props
    wanted: tuple[What, ...] = _ORDERS[what]
    for kind in wanted:
        for mapping in mappings:
            if mapping.what == kind and mapping.fits([*source.columns, ROW_NUMBER], source.name):
                return _recognised(
                    source, f"mapping:{mapping.name}", _with_props(mapping, source, props), None
                )
    for kind in wanted:
        found = _known(source, kind, props, sure=kind == what)
        if found is not None:
            return found
    raise _unknown(source, what)


_ORDERS: dict[What | None, tuple[What, ...]] = {
    None: ("events", "catalog", "users"),
    "events": ("events", "users", "catalog"),
    "catalog": ("catalog",),
    "users": ("users",),
}


def _known(source: Source, kind: What, props: Sequence[str], *, sure: bool) -> Recognised | None:
    if kind == "events":
        for dialect in DIALECTS:
            found = dialect.look(source.columns)
            if found is not None:
                return _recognised(source, dialect.name, _with_props(found, source, props), dialect)
        return None
    look = catalog_mapping if kind == "catalog" else users_mapping
    mapping = look(source.columns, sure=sure)
    return None if mapping is None else _recognised(source, mapping.name, mapping, None)


def _with_props(mapping: Mapping, source: Source, props: Sequence[str]) -> Mapping:
    if mapping.what != "events":
        return mapping
    wanted = [p for p in props if p in source.columns and p not in mapping.columns]
    if not wanted:
        return mapping
    fields = {name: getattr(mapping, name) for name in mapping.__struct_fields__}
    return Mapping(**{**fields, "props": [*mapping.props, *wanted]})


def _recognised(source: Source, name: str, mapping: Mapping, dialect: Dialect | None) -> Recognised:
    ignored = [c for c in source.columns if c in mapping.ignore]
    if mapping.what == "events":  # in a catalogue or a table of users everything else rides along
        used = {*mapping.columns, *(dialect.uses if dialect else ())}
        ignored = [c for c in source.columns if c not in used]
    return Recognised(mapping.what, name, mapping, ignored, dialect.expand if dialect else None)


def _unknown(source: Source, what: What | None) -> UnknownColumns:
    proposal, missing = propose(source, what or "events")
    lacks = f"; nothing in it looks like {' or '.join(missing)}" if missing else ""
    error = UnknownColumns(
        f"the columns of {source.name} are of no form we know{lacks}",
        value=", ".join(source.columns),
        hint="run the command again with --write-mapping to write the proposed [[mapping]] to shop.toml, "
        "look it over there, and edit what is wrong",
        path=str(source.path),
    )
    error.proposal = proposal
    return error
