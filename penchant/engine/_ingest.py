"""Files into the shop: recognise, clean, store, set aside what cannot be believed, and say what was done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import Progress
from penchant.core.errors import InputError, ModelError, NotFound, PenchantError, UnknownColumns
from penchant.data import (
    RULE,
    CleaningReport,
    Health,
    Mapping,
    Recognised,
    Source,
    clean_events,
    diagnose,
    open_source,
    read_catalog,
    read_users,
    recognise,
    render_health_html,
)
from penchant.engine import _requests as rq
from penchant.engine._content import encode_newcomers
from penchant.engine._people import Sieve, unwanted
from penchant.store import atomic_write

if TYPE_CHECKING:
    from penchant.engine._shop import Shop


Expected = Literal["events", "catalog"]
_SHORT_LOG = 100_000  # events


def read_mappings(path: str) -> list[Mapping]:
    """The ``[[mapping]]`` tables of a TOML file.

    Raises:
        NotFound: There is no such file.
        InputError: It is not TOML, or a key is unknown or of the wrong type (named).
    """

    class _File(msgspec.Struct, forbid_unknown_fields=True):
        mapping: list[Mapping]

    try:
        return msgspec.toml.decode(Path(path).read_bytes(), type=_File).mapping
    except FileNotFoundError:
        raise NotFound("no such file", value=path, hint="give a TOML file with [[mapping]] tables") from None
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise InputError(
            f"this mapping file is wrong: {error}", value=path, hint="correct that key"
        ) from None


def ingest(shop: Shop, request: rq.IngestRequest, progress: Progress) -> rq.IngestReport:
    """Read event files and user tables, one after the other; each is all in or not at all."""
    return _each(shop, request.files, request.mapping, request.write_mapping, "events", progress)


def read_catalog_files(shop: Shop, request: rq.CatalogRequest, progress: Progress) -> rq.IngestReport:
    """Read catalogue files, one after the other, and encode what is new in them if the serving model can use it."""
    report = _each(shop, request.files, request.mapping, request.write_mapping, "catalog", progress)
    notes = encode_newcomers(shop, progress)
    if not notes:
        return report
    last = msgspec.structs.replace(report.files[-1], notes=[*report.files[-1].notes, *notes])
    return msgspec.structs.replace(report, files=[*report.files[:-1], last])


def _each(
    shop: Shop, files: list[str], mapping: str | None, write: bool, expected: Expected, progress: Progress
) -> rq.IngestReport:
    mappings = [*(read_mappings(mapping) if mapping else []), *shop.config.mapping]
    take = {"events": _take_events, "users": _take_users, "catalog": _take_catalog}
    reports: list[rq.FileReport] = []
    for file in files:
        started = time.perf_counter()
        try:
            source = open_source(Path(file))
            recognised = _recognise(shop, source, mappings, write, expected)
            report = take[recognised.what](shop, source, recognised, progress)
        except PenchantError as error:
            if reports:
                stored = f"what came before it is stored: {', '.join(r.file for r in reports)}"
                error.hint = f"{error.hint}; {stored}" if error.hint else stored
            raise
        reports.append(msgspec.structs.replace(report, seconds=round(time.perf_counter() - started, 3)))
    return rq.IngestReport(
        files=reports,
        rows=sum(r.rows for r in reports),
        accepted=sum(r.accepted for r in reports),
        refused=sum(r.refused for r in reports),
        erased=sum(r.erased for r in reports),
        withheld=sum(r.withheld for r in reports),
        broken=sum(r.broken for r in reports),
    )


def _recognise(
    shop: Shop, source: Source, mappings: list[Mapping], write: bool, expected: Expected
) -> Recognised:
    try:
        recognised = recognise(source, mappings, what=expected, settings=shop.config.data)
    except UnknownColumns as error:
        proposal = error.proposal
        if not write or not isinstance(proposal, Mapping):
            raise
        shop.add_mapping(proposal)
        mappings.append(proposal)
        recognised = recognise(source, mappings, what=expected, settings=shop.config.data)
    if expected == "catalog" and recognised.what != "catalog":
        raise InputError(
            f"this file holds {recognised.what}, not a catalogue",
            value=str(source.path),
            hint="use `penchant ingest` for it",
        )
    if expected == "events" and recognised.what == "catalog":
        raise InputError(
            "this file holds a catalogue, not events",
            value=str(source.path),
            hint="use `penchant catalog` for it",
        )
    return recognised


def _take_events(shop: Shop, source: Source, recognised: Recognised, progress: Progress) -> rq.FileReport:
    stream = clean_events(source, recognised, shop.config.data, shop.clock())
    sieve = Sieve(shop)
    name = f"reading {source.path.name}, {source.unit}"

    def counted() -> Iterator[pa.RecordBatch]:
        told = 0
        for batch in sieve.events(stream.accepted()):
            yield batch
            told = source.done
            progress(name, told, source.total, {})
        if told < source.total:
            progress(name, source.total, source.total, {})

    loaded = shop.store.load(counted(), source=source.path.name)
    report = stream.report
    kept = _keep(shop, source, chain(stream.refused(), [loaded.refused]), report, recognised)
    refused = report.refused + loaded.refused.num_rows
    refusals = _refusals(report) + _store_refusals(loaded.refused)
    return rq.FileReport(
        file=str(source.path),
        what="events",
        dialect=recognised.dialect,
        rows=report.events,
        accepted=loaded.accepted,
        already_stored=loaded.already_stored,
        refused=refused,
        erased=loaded.erased,
        withheld=sieve.withheld,
        broken=_broken(refusals, loaded.accepted + loaded.already_stored + loaded.erased + sieve.withheld),
        refusals=refusals,
        notes=[*report.notes, *([f"{loaded.late} events are more than a day late"] if loaded.late else [])],
        quarantine=str(kept) if refused else None,
    )


def _keep(
    shop: Shop,
    source: Source,
    refused: Iterable[pa.Table | pa.RecordBatch],
    report: CleaningReport,
    recognised: Recognised,
) -> Path:
    """Put the refused rows of a file aside; nothing of people of whom nothing may be kept."""
    return shop.quarantine.add(
        source.path.name,
        source.sha256,
        refused,
        report=report,
        what=recognised.what,
        erased=unwanted(shop),
    )


def _store_refusals(refused: pa.Table) -> list[rq.Refusal]:
    found = []
    for reason in refused["reason"].unique().to_pylist() if refused.num_rows else []:
        rows = refused["row"].filter(pc.equal(refused["reason"], reason))  # one column: the table may be long
        found.append(_refusal(reason, len(rows), [f"row {row}" for row in rows.slice(0, 5).to_pylist()]))
    return found


def _refusal(reason: str, count: int, examples: list[str]) -> rq.Refusal:
    return rq.Refusal(reason=reason, count=count, examples=examples, broken=RULE[reason].broken)


def _broken(refusals: list[rq.Refusal], used: int) -> int:
    """Rows that cannot be believed: the broken ones; all of them where a file had rows and none was of use."""
    if used or any(r.reason == "duplicate" for r in refusals):
        return sum(r.count for r in refusals if r.broken)
    return sum(r.count for r in refusals)


def _refusals(report: CleaningReport) -> list[rq.Refusal]:
    return [_refusal(r.reason, r.count, list(r.examples)) for r in report.refusals]


Reader = Callable[..., tuple[pa.Table, pa.Table, CleaningReport]]


def _take_table(
    shop: Shop, source: Source, recognised: Recognised, read: Reader, put: Callable[[pa.Table], int | None]
) -> rq.FileReport:
    table, refused, report = read(source, recognised, shop.config.data)
    erased = put(table) or 0
    kept = _keep(shop, source, [refused], report, recognised)
    refusals = _refusals(report)
    return rq.FileReport(
        file=str(source.path),
        what=recognised.what,
        dialect=recognised.dialect,
        rows=report.events,
        accepted=table.num_rows - erased,
        refused=report.refused,
        erased=erased,
        broken=_broken(refusals, table.num_rows),
        refusals=refusals,
        notes=list(report.notes),
        quarantine=str(kept) if report.refused else None,
    )


def _take_users(shop: Shop, source: Source, recognised: Recognised, progress: Progress) -> rq.FileReport:
    sieve = Sieve(shop)
    report = _take_table(
        shop, source, recognised, read_users, lambda table: shop.store.put_users(sieve.users(table))
    )
    accepted = report.accepted - sieve.withheld
    return msgspec.structs.replace(report, accepted=accepted, withheld=sieve.withheld)


def _take_catalog(shop: Shop, source: Source, recognised: Recognised, progress: Progress) -> rq.FileReport:
    return _take_table(shop, source, recognised, read_catalog, shop.store.put_catalog)


def training_refusal(shop: Shop, progress: Progress) -> str | None:
    """Why training would refuse what is stored, by the training's own rule; None where it would not.

    A long log is not tried: its arrays cost too much for a look, and it has people enough.
    """
    from penchant.engine._protocol import split_cases, take_snapshot

    if not 0 < shop.store.status().events <= _SHORT_LOG:
        return None
    try:
        split_cases(take_snapshot(shop, progress), shop.config.train.holdout, seed=0)
    except (ModelError, InputError) as error:
        return error.message
    return None


def doctor(shop: Shop, request: rq.DoctorRequest, progress: Progress) -> Health:
    """Examine everything stored and set aside; keep the report in the shop."""
    refusal = training_refusal(shop, progress)
    health = diagnose(shop.store, shop.config.data, shop.quarantine, shop.clock(), refusal=refusal)
    page = render_health_html(health).encode()
    reports = shop.path / "reports"
    reports.mkdir(exist_ok=True)
    atomic_write(reports / "doctor.json", msgspec.json.format(msgspec.json.encode(health), indent=1))
    atomic_write(reports / "doctor.html", page)
    if request.html is not None:
        atomic_write(Path(request.html), page)
    return health
