"""Live events on their way into the journal: judged and committed, several calls at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from penchant.core import Cipher, Event, Identified, bucket_of
from penchant.core.errors import InputError
from penchant.store._hashing import Persons, hash_text
from penchant.store._identity import link_of, told_by, without_erased
from penchant.store._ids import IdIndex
from penchant.store._journal import LinkRow, signed
from penchant.store._rows import Row, Stored, encode_row, event_row
from penchant.store._sums import EventRow


@dataclass(frozen=True, slots=True)
class _Prepared:
    row: Row
    person: bytes
    bucket: int
    id_hash: int
    content: int
    body: bytes
    link: LinkRow | None  # where the event has both ids


@dataclass(slots=True)
class Append:
    """One call of ``append``: its events, and later the words for them or the error."""

    events: list[_Prepared]
    words: list[str] | None = None
    error: Exception | None = None
    links: list[LinkRow] = field(default_factory=list)
    positions: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        events: Sequence[Event],
        persons: Persons,
        cipher: Cipher | None,
        *,
        said: Sequence[int | None] | None = None,
        identified: Iterable[Identified] = (),
        positions: Mapping[str, int] | None = None,
    ) -> Append:
        """Do in the caller's thread what needs no lock: rows, hashes, bodies."""
        times = [event.ts for event in events] if said is None else said
        prepared = [_prepare(e, t, persons, cipher) for e, t in zip(events, times, strict=True)]
        return cls(
            prepared, links=[link_of(found, persons) for found in identified], positions=positions or {}
        )


def _prepare(event: Event, said: int | None, persons: Persons, cipher: Cipher | None) -> _Prepared:
    row = event_row(event)
    link = told_by(row)
    try:
        return _Prepared(
            row,
            persons(row.subject),
            bucket_of(row.subject),
            hash_text(row.event_id),
            row.content_hash(said),
            encode_row(row, cipher),
            None if link is None else link_of(link, persons),
        )
    except UnicodeEncodeError as error:
        raise InputError("an event holds text that is not valid Unicode", value=row.event_id) from error


@dataclass(frozen=True)
class Judged:
    """What becomes of the events of several calls: what is to be written, and the words that are true once it is."""

    rows: list[EventRow]
    links: list[LinkRow]
    positions: list[tuple[str, int]]
    stored: dict[int, list[Stored]]  # by bucket
    words: list[str]

    def tell(self, requests: Sequence[Append]) -> None:
        """Set the words of the calls."""
        done = iter(self.words)
        for request in requests:
            request.words = [next(done) for _ in request.events]


def id_hashes(requests: Sequence[Append]) -> list[int]:
    """Of all events of several calls, as databases store them."""
    return [signed(event.id_hash) for request in requests for event in request.events]


def judge_appends(
    requests: Sequence[Append], known: dict[int, int], ids: IdIndex, tombstones: set[bytes], next_seq: int
) -> Judged:
    """Judge the events of several calls in order.

    Args:
        requests: The calls, in order of arrival.
        known: Contents of those of their ids that are in the journal.
        ids: What is in the table.
        tombstones: Erased persons.
        next_seq: The next number of arrival.
    """
    events = [event for request in requests for event in request.events]
    accepted: dict[int, int] = {}
    words: list[str] = []
    rows: list[EventRow] = []
    stored: dict[int, list[Stored]] = {}
    for event in events:
        word = _judge(event, known, accepted, ids, tombstones)
        words.append(word)
        if word != "stored":
            continue
        accepted[event.id_hash] = event.content
        seq = next_seq + len(rows)
        key, content = signed(event.id_hash), signed(event.content)
        rows.append((seq, key, content, event.person, event.bucket, event.row.ts, event.body))
        stored.setdefault(event.bucket, []).append(Stored(seq, event.row))
    told = [event.link for event, word in zip(events, words, strict=True) if event.link and word == "stored"]
    told += [link for request in requests for link in request.links]
    positions = [item for request in requests for item in request.positions.items()]
    return Judged(rows, without_erased(told, tombstones), positions, stored, words)


def _judge(
    event: _Prepared, known: dict[int, int], accepted: dict[int, int], ids: IdIndex, tombstones: set[bytes]
) -> str:
    if event.person in tombstones:
        return "erased"
    before = known.get(signed(event.id_hash))
    if before is None:
        before = accepted.get(event.id_hash)
        if before is None:
            before = ids.find(event.id_hash)
        if before is None:
            return "stored"
        before = signed(before)
    return "duplicate" if before == signed(event.content) else "conflict"
