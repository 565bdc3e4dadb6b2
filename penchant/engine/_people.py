"""People at the shop's edge: which name they have in it, and what they allow.

Every event, request and file about somebody passes here before anything is done with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import GUEST_PREFIX, Event, History, Purpose, subject_of
from penchant.data import clean_id
from penchant.engine import _govern_requests as gr

if TYPE_CHECKING:
    from penchant.engine._shop import Shop
    from penchant.privacy import Pseudonyms

Named = TypeVar("Named", bound=msgspec.Struct)
NOBODY = "anon:nobody"
_IDS = ("user_id", "anonymous_id")


def own_name(shop: Shop, given: str) -> str:
    """An id as the shop keeps it: without blanks around it, in Unicode form NFC, or its pseudonym."""
    plain = given if given.isascii() and given == given.strip() else clean_id(given) or given
    return plain if shop.pseudonyms is None else _pseudonym(shop.pseudonyms, plain)


def _pseudonym(pseudonyms: Pseudonyms, name: str) -> str:
    """The pseudonym of an id, behind the mark of guests where it has that; a blank one is refused further on."""
    if name.startswith(GUEST_PREFIX):
        return GUEST_PREFIX + _pseudonym(pseudonyms, name.removeprefix(GUEST_PREFIX))
    return pseudonyms(name) if name.strip() else name


def known_person(shop: Shop, request: Named) -> Named:
    """A request or an event with its ids as the shop keeps them."""
    changed = {}
    for name in _IDS:
        given = getattr(request, name)
        if given is not None and (own := own_name(shop, given)) != given:
            changed[name] = own
    return msgspec.structs.replace(request, **changed) if changed else request


def withheld(shop: Shop, event: Event) -> bool:
    """Whether nothing of this person may be kept. What the event itself says of consent is noted first."""
    if event.consent is None and shop.consent.trivial:
        return False
    subject = subject_of(event.user_id, event.anonymous_id)
    if event.consent is not None and not shop.store.is_erased(subject):
        assert event.ts is not None
        moment = min(
            event.ts, shop.clock()
        )  # a clock that is ahead must not outlast what is chosen meanwhile
        lifts = event.user_id is None  # the id of a device is a secret, a user's may be guessed
        shop.consent.state_of(subject, event.consent, ts=moment, source="event", lifts=lifts)
    return not shop.consent.allowed(subject)


def unwanted(shop: Shop) -> Callable[[str], bool] | None:
    """Tells of whom nothing may be kept: the erased, and who allows nothing; None where that is nobody."""
    if not shop.store.num_erased and shop.consent.trivial:
        return None
    return lambda subject: (
        shop.store.is_erased(subject) or not (shop.consent.trivial or shop.consent.allowed(subject))
    )


def may(shop: Shop, subject: str, purpose: Purpose) -> bool:
    """Whether a person's data may serve a purpose."""
    return shop.consent.trivial or shop.consent.allows(subject, purpose)


def asking(shop: Shop, user_id: str | None, anonymous_id: str | None) -> str:
    """Whom an answer is for: ``NOBODY`` where nobody is named, or somebody who allows no personal answers."""
    if not user_id and not anonymous_id:
        return NOBODY
    subject = subject_of(user_id, anonymous_id)
    return subject if may(shop, subject, "personalise") else NOBODY


def history_of(shop: Shop, subject: str) -> History:
    """What models may read of a person; nothing of ``NOBODY``."""
    if subject == NOBODY:
        return no_history(subject)
    return shop.store.history(subject, shop.config.serve.max_history)


def no_history(subject: str) -> History:
    """The history of somebody of whom nothing is known, or may be used."""
    none = np.empty(0)
    return History(subject, none.astype(np.int64), none.astype(np.uint8), [], none.astype(np.float32), [])


def willing(shop: Shop, table: pa.Table) -> pa.Table:
    """The rows, by ``subject``, of people who allow to learn from them."""
    if shop.consent.trivial:
        return table
    people = pc.unique(table["subject"])
    yes = [person for person in people.to_pylist() if shop.consent.allows(person, "analytics")]
    return table.filter(pc.is_in(table["subject"], value_set=pa.array(yes, pa.string())))


def unwilling(shop: Shop) -> list[str]:
    """Everybody with events who does not allow to learn from them."""
    if shop.consent.trivial:
        return []
    found: list[str] = []
    for bucket in range(shop.store.num_buckets):
        people = pc.unique(shop.store.scan(bucket=bucket, columns=["subject"])["subject"]).to_pylist()
        found += [person for person in people if not shop.consent.allows(person, "analytics")]
    return sorted(found)


class Sieve:
    """Rows of files on their way into the store: ids as the shop keeps them, nothing of who allows nothing."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.withheld = 0

    def events(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Batches of cleaned events."""
        for batch in batches:
            yield self._willing(self._renamed(batch, ("subject", *_IDS)))

    def users(self, table: pa.Table) -> pa.Table:
        """A table of attributes."""
        if self._shop.pseudonyms is None and self._shop.consent.trivial:
            return table
        table = self._renamed(table.combine_chunks(), ("user_id",))
        keep = [
            person is None or bool(self._shop.consent.allowed(person))
            for person in table["user_id"].to_pylist()
        ]
        self.withheld += keep.count(False)
        return table.filter(pa.array(keep, pa.bool_()))

    def _renamed(self, rows: pa.RecordBatch | pa.Table, names: tuple[str, ...]) -> pa.RecordBatch | pa.Table:
        pseudonyms = self._shop.pseudonyms
        if pseudonyms is None:
            return rows
        for name in names:
            index = rows.schema.get_field_index(name)
            coded = pc.dictionary_encode(rows.column(index))
            coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
            people = coded.dictionary.to_pylist()
            own = [None if given is None else _pseudonym(pseudonyms, given) for given in people]
            dictionary = pa.array(own, pa.string())
            rows = rows.set_column(index, rows.schema.field(index), dictionary.take(coded.indices))
        return rows

    def _willing(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Without the rows of people who allow nothing, and those that say so themselves."""
        refused = pc.fill_null(pc.equal(batch.column("consent"), ""), False)
        if not self._shop.consent.trivial:
            coded = pc.dictionary_encode(batch.column("subject"))
            closed = [not self._shop.consent.allowed(person) for person in coded.dictionary.to_pylist()]
            refused = pc.or_(refused, pa.array(np.array(closed or [False], bool)[np.asarray(coded.indices)]))
        count = pc.sum(refused).as_py() or 0
        if not count:
            return batch
        self.withheld += count
        return batch.filter(pc.invert(refused))


def consent(shop: Shop, request: gr.ConsentRequest) -> gr.ConsentReport:
    """Note what a person chose, and tell what holds now."""
    subject = request.subject
    if not shop.store.is_erased(subject):
        for purposes, granted in ((request.grant, True), (request.withdraw, False)):
            shop.consent.choose(subject, purposes, granted=granted, ts=shop.clock(), source=request.source)
    return gr.ConsentReport(
        subject=subject, allows=shop.consent.allowed(subject), history=shop.consent.history(subject)
    )
