"""A key for each person, wrapped by a key of the shop: what is sealed with it is gone when the key is destroyed.

Envelope encryption: AES-256-GCM (``cryptography``) seals texts under a random key of the person (DEK); the DEKs lie
in a small database, each sealed by the key of the shop (KEK), which comes from outside. Destroying a DEK reaches
copies that an erasure cannot, such as backups, which do not hold the DEKs. The database deletes securely and empties
its log afterwards; copies below the file system (snapshots, worn flash cells) are beyond that, and rotating the KEK
is what covers them.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from penchant.core.errors import MissingExtra, ShopError, StorageError

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError:
    raise MissingExtra("privacy", "sealing what people wrote") from None

SCHEMA_VERSION = 1
KEK, KEK_FILE = "PENCHANT_KEK", "PENCHANT_KEK_FILE"
_MOST_OPEN = 100_000  # keys of people held in memory
_NONCE = 12  # bytes
_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE deks (person BLOB PRIMARY KEY, kek TEXT NOT NULL, wrapped BLOB NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
"""


def keys_from_environment() -> list[bytes]:
    """The shop's keys, the current one first: ``PENCHANT_KEK``, or the file that ``PENCHANT_KEK_FILE`` names.

    Each is 32 bytes in base64; several are separated by blanks. To rotate, put a new one in front, open the shop
    once, and take the old one away.

    Raises:
        ShopError: There is none, or one is not 32 bytes.
    """
    given = os.environ.get(KEK, "")
    if not given and (path := os.environ.get(KEK_FILE)):
        try:
            given = Path(path).read_text("ascii")
        except (OSError, UnicodeDecodeError):
            raise ShopError(f"the file of {KEK_FILE} cannot be read", value=path, hint="check it") from None
    words = given.split()
    if not words:
        raise ShopError(
            f"this shop is sealed, and its key is not there: neither {KEK} nor {KEK_FILE} is set",
            hint="set it to the key the shop was sealed with; a new shop takes `openssl rand -base64 32`",
        )
    try:
        keys = [base64.b64decode(word, validate=True) for word in words]
    except (binascii.Error, ValueError):
        keys = [b""]
    if any(len(key) != 32 for key in keys):
        raise ShopError(
            "a key of the shop is not 32 bytes in base64", hint="make one with `openssl rand -base64 32`"
        )
    return keys


class Vault:
    """The keys of the people of one shop: the store's ``Cipher``.

    Args:
        path: The database; made where it is missing, unless ``readonly``.
        keks: The shop's keys, the current one first. Older ones open what they wrapped, and a writer wraps it anew.
        readonly: Make no keys and wrap none anew.

    Raises:
        ShopError: Keys of people are wrapped by a key of the shop that is not given, or a newer version wrote them.

    Example:
        >>> import tempfile
        >>> vault = Vault(Path(tempfile.mkdtemp()) / "vault.db", [bytes(32)])
        >>> sealed = vault.encrypt("u1", "text", b"too small")
        >>> vault.decrypt("u1", "text", sealed)
        b'too small'
        >>> vault.destroy(vault.person("u1"))
        1
    """

    def __init__(self, path: Path, keks: list[bytes], *, readonly: bool = False) -> None:
        self.path, self._readonly = path, readonly
        self._keks = {hashlib.sha256(b"kek" + kek).hexdigest()[:16]: AESGCM(kek) for kek in keks}
        self._current = next(iter(self._keks))
        self._open_keys: OrderedDict[bytes, AESGCM] = OrderedDict()
        self._pending: dict[bytes, bytes] = {}  # person -> wrapped: made, not yet on disk
        self._lock = threading.RLock()
        self.person: Callable[[str], bytes] = lambda subject: hashlib.sha256(subject.encode()).digest()[:16]
        with self._guard():
            new = not path.exists()
            if readonly and new:
                raise ShopError("the keys of the people are missing", value=str(path), hint="restore them")
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
            self._db.execute("PRAGMA secure_delete = ON")
            if new:
                os.chmod(path, 0o600)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.executescript("BEGIN;" + _SCHEMA)
                self._db.execute("INSERT INTO meta VALUES ('id', ?)", (secrets.token_bytes(16),))
                self._db.execute("COMMIT")
            self._db.execute("PRAGMA synchronous = FULL")
            self._check()

    def _check(self) -> None:
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found > SCHEMA_VERSION:
            raise ShopError(
                "the keys of the people were written by a newer version",
                value=found,
                hint="pip install --upgrade penchant",
            )
        self._id: bytes = self._db.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()[0]
        used = {kek for (kek,) in self._db.execute("SELECT DISTINCT kek FROM deks")}
        if missing := sorted(used - self._keks.keys()):
            raise ShopError(
                "keys of people were wrapped by a key of the shop that is not given",
                value=missing,
                hint=f"put that key too into {KEK}; without it their texts stay closed",
            )
        if not self._readonly and used - {self._current}:
            self._wrap_anew()

    def _wrap_anew(self) -> None:
        """Wrap every key by the current key of the shop: what a rotation is."""
        rows = self._db.execute("SELECT person, kek, wrapped FROM deks WHERE kek <> ?", (self._current,))
        wrapped = [
            (self._current, self._wrap(person, self._unwrap(person, kek, old)), person)
            for person, kek, old in rows.fetchall()
        ]
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("UPDATE deks SET kek = ?, wrapped = ? WHERE person = ?", wrapped)
        self._db.execute("COMMIT")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def bind(self, person: Callable[[str], bytes]) -> None:
        """Name people as the store does, so that it can tell whose key to destroy after a crash too."""
        self.person = person

    # -- sealing ------------------------------------------------------------------------------------------

    def encrypt(self, subject: str, field: str, plain: bytes) -> bytes:
        """Seal bytes under the person's key: 28 bytes more. A key made for it is on disk after ``flush``."""
        key = self._key(self.person(subject), make=True)
        assert key is not None
        nonce = secrets.token_bytes(_NONCE)
        return nonce + key.encrypt(nonce, plain, self._bound(subject, field))

    def decrypt(self, subject: str, field: str, sealed: bytes) -> bytes:
        """Open sealed bytes.

        Raises:
            StorageError: The person's key was destroyed, or the bytes are not what was sealed for this place.
        """
        key = self._key(self.person(subject), make=False)
        if key is None:
            raise StorageError("the key of this person was destroyed")
        try:
            return key.decrypt(sealed[:_NONCE], sealed[_NONCE:], self._bound(subject, field))
        except (InvalidTag, ValueError):
            raise StorageError(
                "sealed bytes were changed, or belong elsewhere", hint="restore them"
            ) from None

    def _bound(self, subject: str, field: str) -> bytes:
        """What a seal is bound to: shop, person and field. Moved anywhere else it does not open."""
        return b"\0".join((self._id, subject.encode(), field.encode()))

    def _key(self, person: bytes, *, make: bool) -> AESGCM | None:
        with self._lock:
            if person in self._open_keys:
                self._open_keys.move_to_end(person)
                return self._open_keys[person]
            with self._guard():
                row = self._db.execute("SELECT kek, wrapped FROM deks WHERE person = ?", (person,)).fetchone()
            if row is not None:
                dek = self._unwrap(person, *row)
            elif make:
                dek = AESGCM.generate_key(256)
                self._pending[person] = self._wrap(person, dek)
            else:
                return None
            self._open_keys[person] = AESGCM(dek)
            while len(self._open_keys) > _MOST_OPEN and next(iter(self._open_keys)) not in self._pending:
                self._open_keys.popitem(last=False)
            return self._open_keys[person]

    def _wrap(self, person: bytes, dek: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._keks[self._current].encrypt(nonce, dek, self._id + person)

    def _unwrap(self, person: bytes, kek: str, wrapped: bytes) -> bytes:
        try:
            return self._keks[kek].decrypt(wrapped[:_NONCE], wrapped[_NONCE:], self._id + person)
        except (InvalidTag, KeyError, ValueError):
            raise StorageError("a person's key is damaged", hint="restore the keys from a backup") from None

    def flush(self) -> None:
        """Put new keys on disk: before anything that they sealed."""
        if not self._pending:
            return
        with self._lock, self._guard():
            rows = [(person, self._current, wrapped) for person, wrapped in self._pending.items()]
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("INSERT OR IGNORE INTO deks VALUES (?, ?, ?)", rows)
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
            self._pending.clear()

    def destroy(self, person: bytes) -> int:
        """Destroy a person's key for good; returns 1, or 0 when there was none.

        Raises:
            StorageError: The disk refused, or the bytes of the key are still in the database's files.
        """
        with self._lock, self._guard():
            self._open_keys.pop(person, None)
            fresh = self._pending.pop(person, None)
            row = self._db.execute("SELECT wrapped FROM deks WHERE person = ?", (person,)).fetchone()
            if row is None:
                return int(fresh is not None)
            self._db.execute("DELETE FROM deks WHERE person = ?", (person,))
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if self.holds(row[0]):
                self._db.execute("VACUUM")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                if self.holds(row[0]):
                    raise StorageError(
                        "a person's key was deleted, but its bytes are still in a file",
                        value=self.path.name,
                        hint="end whatever else reads the keys, then give the same command again",
                    )
            return 1

    def holds(self, wrapped: bytes) -> bool:
        """Whether the bytes of a wrapped key stand in the database's files."""
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return any(wrapped in file.read_bytes() for file in files if file.exists())

    def copy(self, to: Path) -> None:
        """Write a copy of the keys, wrapped as they are; it may be taken while people are served."""
        with self._lock, self._guard():
            self.flush()
            with contextlib.closing(sqlite3.connect(to)) as other:
                self._db.backup(other)
            os.chmod(to, 0o600)

    def close(self) -> None:
        """Put new keys on disk and close the database."""
        with self._lock, self._guard():
            self.flush()
            self._db.close()

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(
                f"the keys of the people cannot be read or written: {error}",
                value=str(self.path),
                hint="nothing was sealed without a key; check the disk",
            ) from error
