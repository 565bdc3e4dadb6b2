"""A person's rights: everything out, or everything gone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from penchant.core import ErasureReceipt, Slate
from penchant.core.errors import ErasureIncomplete
from penchant.engine import _requests as rq
from penchant.engine._backup import note_erasure
from penchant.engine._jobs import forget_jobs
from penchant.engine._plan import forget_plans
from penchant.engine._profile import profile
from penchant.engine._serving import Serving
from penchant.store import atomic_write

if TYPE_CHECKING:
    from penchant.engine._shop import Shop


def erase_user(shop: Shop, request: rq.EraseRequest) -> ErasureReceipt:
    """Remove a person from the store, then from everything beside it, and search every file afterwards.

    The store comes first: from then on nothing of the person is taken in, so nothing of what follows can come back.
    Were the consents forgotten before, an event in between would find somebody who forbids nothing; were a snapshot
    deleted before, a training in between would make one with the person in it.

    Snapshots, unfinished runs and reports are made from everyone's events and can be made again, so they are
    deleted whole. Promoted models hold no person's rows; the next training learns without the person.

    Raises:
        ErasureIncomplete: Everything the shop knows of was removed, but files in its folder still hold the id.
    """
    subject = request.subject
    everybody = [*shop.store.guests(subject), subject]
    for name in everybody:
        note_erasure(shop, name)
    removed = {"plans": forget_plans(shop, subject)}  # while it is known what the person held

    def beside() -> None:
        removed.update(
            consent=sum(shop.consent.forget(name) for name in everybody),
            quarantine=sum(shop.quarantine.erase(name) for name in everybody),
            snapshots=_drop(shop.snapshots),
            runs=_drop(shop.runs),
            reports=_drop(shop.path / "reports"),
            jobs=sum(forget_jobs(shop.path / "jobs", name) for name in everybody),
        )

    receipt = shop.store.erase(subject, beside=beside)
    held = {name for person in everybody for name in shop.quarantine.holding(person)}
    refused = [f"quarantine/{name}" for name in sorted(held)]
    if remaining := [*receipt.remaining, *refused]:
        raise ErasureIncomplete(
            "the person was erased from the shop, but the id still stands in files of its folder",
            value=", ".join(remaining),
            hint="take it out of these files, or delete those that are not the shop's, and give the same command "
            "again; an id that another person bears too is found until that one is erased",
        )
    return msgspec.structs.replace(receipt, removed={**receipt.removed, **removed})


def _drop(folder: Path) -> int:
    """Delete a folder of derived files; returns how many entries it had."""
    entries = list(folder.iterdir()) if folder.is_dir() else []
    shutil.rmtree(folder, ignore_errors=True)
    return len(entries)


def export_user(shop: Shop, serving: Serving, request: rq.ExportRequest) -> rq.ExportReport:
    """Everything kept about a person: events, refused rows, answers they were given, attributes, profile."""
    subject = request.subject
    kept = shop.store.export(subject)
    who = rq.ProfileRequest(user_id=request.user_id, anonymous_id=request.anonymous_id)
    report = rq.ExportReport(
        subject=subject,
        events=kept["events"],
        refused=[
            row for name in [subject, *shop.store.guests(subject)] for row in shop.quarantine.export(name)
        ],
        decisions=msgspec.convert(kept["decisions"], list[Slate]),
        attributes=kept["attributes"] or {},
        letters=kept["letters"],
        profile=profile(shop, serving, who),
        erased=bool(kept["erased"]),
        consent=shop.consent.history(subject),
    )
    if request.out is not None:
        atomic_write(Path(request.out), msgspec.json.format(msgspec.json.encode(report), indent=1))
    return report
