"""API keys of a shop: who may call which operations of a server.

A key is ``pk_<id>_<secret>``: the id, 48 random bits, is looked up; the secret, 256 random bits, is compared. The
shop keeps HMAC-SHA256(pepper, key) alone. A slow password hash would guard nothing more, for there is nothing to
guess, and it would cost each request 0.2 s. The pepper comes from ``PENCHANT_PEPPER``, or from a file of the shop.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from penchant.core import DAY, HOUR, Clock, Micros, Noun
from penchant.core.errors import Forbidden, InputError, NotFound, ShopError
from penchant.engine._access import CALLER
from penchant.engine._govern_requests import Key, KeysReport, KeysRequest
from penchant.engine._operation import Scope
from penchant.privacy import own_secret
from penchant.store import atomic_write

KEY_PATTERN = re.compile(r"pk_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_FILE, _PEPPER_FILE, _PEPPER = "keys.json", "keys.pepper", "PENCHANT_PEPPER"


class Stored(Noun, frozen=True):
    """A key as it is kept."""

    id: str
    name: str
    scopes: list[Scope]
    rate: float
    created: Micros
    digest: str  # HMAC-SHA256 of the whole key, hexadecimal
    expires: Micros | None = None
    revoked: Micros | None = None
    replaced_by: str | None = None

    def state(self, now: Micros) -> str:
        """Whether it is taken: active, expired or revoked."""
        if self.revoked is not None:
            return "revoked"
        return "active" if self.expires is None or now < self.expires else "expired"


class _File(Noun, frozen=True):
    version: int = 1
    keys: list[Stored] = []


@dataclass(frozen=True)
class Grant:
    """What a key that was accepted allows."""

    key: str
    scopes: frozenset[Scope]
    rate: float  # requests a second to each operation


class Keyring:
    """The keys of one shop. It notices what other processes change at the next call.

    Args:
        shop: The shop's folder.
        clock: Tells when a key has ended.

    Example:
        >>> import tempfile
        >>> from penchant.core import now
        >>> folder = Path(tempfile.mkdtemp())
        >>> key, secret = Keyring(folder, now).create("site", ["write"])
        >>> Keyring(folder, now).find(secret).scopes, Keyring(folder, now).find("pk_no") is None
        (frozenset({'write'}), True)
    """

    def __init__(self, shop: Path, clock: Clock) -> None:
        self.path = shop / _FILE
        self._clock = clock
        self._stamp: tuple[int, int] | None = None
        self._keys: dict[str, Stored] = {}
        self._pepper_bytes: bytes | None = None

    # -- reading ------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many keys there are, those that are taken no longer included."""
        return len(self._current())

    def find(self, token: str) -> Grant | None:
        """What a key allows; None when it is unknown, expired or revoked, at the same cost."""
        match = KEY_PATTERN.fullmatch(token)
        stored = self._current().get(match[1]) if match else None
        digest = self._digest(token) if self._keys else ""
        known = stored.digest if stored is not None else "0" * len(digest)
        if not hmac.compare_digest(digest, known) or stored is None:
            return None
        if stored.state(self._clock()) != "active":
            return None
        return Grant(stored.id, frozenset(stored.scopes), stored.rate)

    def all(self) -> list[Key]:
        """Every key without its secret, newest first."""
        now = self._clock()
        rows = sorted(self._current().values(), key=lambda row: (row.created, row.id), reverse=True)
        return [
            msgspec.convert(
                {
                    "id": row.id,
                    "name": row.name,
                    "scopes": row.scopes,
                    "rate": row.rate,
                    "created_ts": row.created,
                    "expires_ts": row.expires,
                    "state": row.state(now),
                    "replaced_by": row.replaced_by,
                },
                Key,
            )
            for row in rows
        ]

    def _current(self) -> dict[str, Stored]:
        """The keys by id, read anew when the file was replaced."""
        try:
            state = os.stat(self.path)
        except FileNotFoundError:
            self._keys, self._stamp = {}, None
            return self._keys
        stamp = (state.st_ino, state.st_mtime_ns)
        if stamp != self._stamp:
            try:
                file = msgspec.json.decode(self.path.read_bytes(), type=_File)
            except msgspec.MsgspecError as error:
                raise ShopError(
                    f"the file of the API keys is damaged: {error}",
                    value=_FILE,
                    hint="restore it from a backup; without it nobody is let in",
                ) from None
            self._keys, self._stamp = {row.id: row for row in file.keys}, stamp
        return self._keys

    def _digest(self, token: str) -> str:
        return hmac.digest(self._pepper(), token.encode(), "sha256").hex()

    def _pepper(self) -> bytes:
        if self._pepper_bytes is None:
            given = os.environ.get(_PEPPER)
            if given is not None and len(given) < 32:
                raise ShopError(f"{_PEPPER} is too short", hint="give at least 32 random characters")
            self._pepper_bytes = given.encode() if given else own_secret(self.path.with_name(_PEPPER_FILE))
        return self._pepper_bytes

    # -- changing -----------------------------------------------------------------------------------------

    def create(
        self, name: str, scopes: list[Scope], *, rate: float = 1000.0, days: float | None = None
    ) -> tuple[str, str]:
        """Make a key; returns its id and the key itself, which is kept nowhere.

        Args:
            name: What it is for.
            scopes: What it may call.
            rate: Requests a second to each operation.
            days: It ends after so many; None for never.
        """
        made, token = self._made(name, scopes, rate, days, self._clock())
        with self._change() as keys:
            keys[made.id] = made
        return made.id, token

    def _made(
        self, name: str, scopes: list[Scope], rate: float, days: float | None, now: Micros
    ) -> tuple[Stored, str]:
        key_id = secrets.token_hex(6)
        token = f"pk_{key_id}_{secrets.token_urlsafe(32)}"
        stored = Stored(
            id=key_id,
            name=name,
            scopes=sorted(set(scopes)),
            rate=rate,
            created=now,
            digest=self._digest(token),
            expires=None if days is None else now + int(days * DAY),
        )
        return stored, token

    def rotate(self, key_id: str, grace: float) -> tuple[str, str]:
        """Make a key that may do the same, and let the old one end after ``grace`` hours.

        Raises:
            NotFound: There is no such key.
            InputError: It is taken no longer, or another rotation has replaced it.
        """
        with self._change() as keys:  # whoever revokes or rotates it meanwhile comes before or after
            old, now = _known(keys, key_id), self._clock()
            if old.state(now) != "active":
                raise InputError(f"this key is {old.state(now)}", value=key_id, hint="create a new one")
            if old.replaced_by is not None:
                raise InputError(
                    "this key was replaced already",
                    value=key_id,
                    hint=f"rotate its successor {old.replaced_by}",
                )
            days = None if old.expires is None else (old.expires - old.created) / DAY
            made, token = self._made(old.name, old.scopes, old.rate, days, now)
            end = now + int(grace * HOUR)
            end = end if old.expires is None else min(end, old.expires)
            keys[old.id] = msgspec.structs.replace(old, expires=end, replaced_by=made.id)
            keys[made.id] = made
        return made.id, token

    def revoke(self, key_id: str) -> None:
        """Take a key no longer, from now on.

        Raises:
            NotFound: There is no such key.
        """
        with self._change() as keys:
            old = _known(keys, key_id)
            if old.revoked is None:
                keys[key_id] = msgspec.structs.replace(old, revoked=self._clock())

    @contextlib.contextmanager
    def _change(self) -> Iterator[dict[str, Stored]]:
        """Read, change and write the file while nobody else does."""
        with open(self.path.with_suffix(".lock"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = dict(self._current())
            yield keys
            atomic_write(self.path, msgspec.json.format(msgspec.json.encode(_File(keys=list(keys.values())))))
            os.chmod(self.path, 0o600)
            self._stamp = None


def _known(keys: dict[str, Stored], key_id: str) -> Stored:
    if key_id not in keys:
        raise NotFound("there is no such key", value=key_id, path="$.key", hint="see the list of keys")
    return keys[key_id]


def change_keys(shop: Path, request: KeysRequest, clock: Clock) -> KeysReport:
    """Do what was asked for. With a key one can give others no more than one may do oneself.

    Raises:
        Forbidden: The caller's own key lacks a scope of the key it would make, rotate or revoke.
        NotFound: There is no such key.
    """
    ring = Keyring(shop, clock)
    secret = note = None
    first = len(ring) == 0
    if request.action == "create":
        _within_own(request.scopes)
        _, secret = ring.create(request.name, request.scopes, rate=request.rate, days=request.days)
    elif request.action != "list":
        key_id = request.key or ""
        _within_own(_known(ring._current(), key_id).scopes)
        if request.action == "rotate":
            _, secret = ring.rotate(key_id, request.grace)
        else:
            ring.revoke(key_id)
    if secret is not None:
        note = "write the secret down now: it is shown only this once"
        note += "; from now on servers of this shop ask for a key" if first else ""
    return KeysReport(keys=ring.all(), secret=secret, note=note)


def _within_own(scopes: list[Scope]) -> None:
    own = CALLER.get().scopes
    if own is not None and (beyond := sorted(set(scopes) - own)):
        raise Forbidden(
            "this key may not give what it does not have", value=beyond, hint="ask whoever keeps the shop"
        )
