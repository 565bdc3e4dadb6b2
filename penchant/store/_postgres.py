"""A journal in PostgreSQL: for shops whose events must outlive the machine that takes them in.

Each shop has a schema of its own, ``penchant_<id>``; one of before there were ids keeps ``penchant_<name>`` as long as
no other shop of that name has it. The server decides what durable means (``fsync`` and
``synchronous_commit`` are on unless somebody turned them off). One writer at a time holds an advisory lock, or several
that share the shop hold it together; these take turns by further locks of the same session, so that whoever dies
gives all of them back.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from penchant.core.errors import MissingExtra, ShopBusy, ShopError, StorageError
from penchant.store._database import Connection
from penchant.store._files import guard
from penchant.store._journal import SCHEMA, first_rows

_HINT = "check the address and that the server runs; what was acknowledged is safe"
_APPEND, _TABLE, _LEADER = 1, 2, 3  # advisory locks beside that of the writers
_POLL = 0.05  # seconds between attempts to change the table
# A process that lost its machine or was halted must not keep the others from writing: its session ends within ten
# seconds or so, and with it the locks.
_SHARED_OPTIONS = (
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c lock_timeout=15s"
    " -c idle_in_transaction_session_timeout=10s"
)


def schema_of(name: str) -> str:
    """The schema of a shop: its name, and a hash where that had to be changed, so that no two shops share one.

    Example:
        >>> schema_of("corner_shop"), schema_of("Corner Shop, Köln")
        ('penchant_corner_shop', 'penchant_corner_shop_k_ln_21bab5864e')
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:42]
    if plain != name:
        plain += ("_" if plain else "") + hashlib.sha256(name.encode()).hexdigest()[:10]
    return "penchant_" + plain


def _translated(sql: str) -> str:
    return sql.replace("?", "%s")


def _tables() -> list[str]:
    words = SCHEMA.replace(" WITHOUT ROWID", "").replace("number INTEGER", "number BIGSERIAL")
    words = words.replace("INTEGER", "BIGINT").replace("BLOB", "BYTEA")
    return [statement for statement in words.split(";") if statement.strip()]


class _Words:
    """A connection that takes the journal's statements."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Any:
        return self._connection.execute(_translated(sql), values)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(_translated(sql), list(rows))


class Postgres:
    """Fulfils ``Database``.

    A connection that breaks is made anew at the next call. Whether a transaction that broke while it was committed
    stands, nobody can tell then: ``unsure`` says so, and the store looks before it goes on.
    """

    def __init__(
        self, url: str, shop: str, *, readonly: bool, shared: bool = False, before: str = ""
    ) -> None:
        try:
            import psycopg
        except ImportError:
            raise MissingExtra("postgres", "a journal in PostgreSQL") from None
        self._psycopg = psycopg
        self._url, self._schema, self.readonly = url, schema_of(shop), readonly
        self.shared = shared
        self._held = 0  # how deep the locks of the session are needed: without it they are gone
        self._leads = False
        self.name = f"PostgreSQL schema {self._schema}"
        self.failed: StorageError | None = None
        self.unsure = False
        self._read_lock, self.lock = threading.RLock(), threading.RLock()
        self._reader: Any = None
        self._writer: Any = None
        with self._guard("the journal cannot be opened"):
            if before:
                self._find(shop, before)
            if not readonly:
                self._write()
            self._read()

    @contextlib.contextmanager
    def _guard(self, what: str, safe: str = "nothing was changed") -> Iterator[None]:
        """Errors of the server in our words, without its address, which may hold a password."""
        try:
            with guard(what, None, safe):
                yield
        except StorageError as error:
            if isinstance(error.__cause__, self._psycopg.Error):
                reason = str(error.__cause__).strip().splitlines() or ["no reason given"]
                error.message = f"{what} ({self.name}): {reason[0][:200]}; {safe}"
                error.hint = _HINT
            raise

    def _connect(self) -> Any:
        connection = self._psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=5,
            keepalives_idle=5,
            tcp_user_timeout=10_000,
            options=_SHARED_OPTIONS if self.shared else "",
        )
        connection.execute(f"SET search_path TO {self._schema}")
        return connection

    def _find(self, shop: str, before: str) -> None:
        """Where the journal of a shop lies that may be known by a name; what has an owner is no other shop's.

        Raises:
            ShopError: Another shop has what this one would have to continue.
        """
        named = schema_of(before)
        with self._connect() as connection, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s), %s)", [named, _APPEND])
            exists = "SELECT to_regclass(%s)"
            if shop and connection.execute(exists, [f"{self._schema}.meta"]).fetchone()[0]:
                return
            if not connection.execute(exists, [f"{named}.meta"]).fetchone()[0]:
                return
            owner = connection.execute(f"SELECT value FROM {named}.meta WHERE key = 'shop'").fetchone()
            if owner is None and not self.readonly:
                connection.execute(f"INSERT INTO {named}.meta VALUES ('shop', %s)", [shop.encode()])
            elif owner is not None and bytes(owner[0]).decode() != shop:
                raise ShopError(
                    "the journal that is known by this shop's name belongs to another shop of that name",
                    value=before,
                    hint="both were kept in one place, and no one can tell them apart: restore this shop from a "
                    "backup of its own, or remove its file shop.id and begin with an empty folder",
                )
            self._schema = named
            self.name = f"PostgreSQL schema {named}"

    def _read(self) -> Any:
        if self._reader is None or self._reader.closed or self._reader.broken:
            self._reader = self._connect()
            if not self._reader.execute("SELECT to_regclass('meta')").fetchone()[0]:
                raise ShopError("there is no journal in this schema", value=self._schema)
        return self._reader

    def _write(self) -> Any:
        if self._writer is None or self._writer.closed or self._writer.broken:
            if self._held:
                raise StorageError(
                    "the connection that kept others from writing was lost",
                    hint="give the same command again; nothing half done is seen",
                )
            self._leads = False
            connection = self._connect()
            kind = "_shared" if self.shared else ""
            (free,) = connection.execute(
                f"SELECT pg_try_advisory_lock{kind}(hashtext(%s))", [self._schema]
            ).fetchone()
            if not free:
                connection.close()
                raise ShopBusy(
                    "another process is writing this shop's journal",
                    value=self._schema,
                    hint="wait until it has finished, or stop it, then try again",
                )
            self._make(connection)
            self._writer = connection
        return self._writer

    def _make(self, connection: Any) -> None:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s), %s)", [self._schema, _APPEND])
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
            if connection.execute("SELECT to_regclass('meta')").fetchone()[0]:
                return
            for statement in _tables():
                connection.execute(statement)
            with connection.cursor() as cursor:
                cursor.executemany("INSERT INTO meta VALUES (%s, %s)", first_rows())

    def read(self, sql: str, *values: Any) -> list[Any]:
        """Rows of a question; asked again once where the connection was broken."""
        with self._read_lock, self._guard("the journal cannot be read"):
            statement = _translated(sql)
            try:
                return list(self._read().execute(statement, values).fetchall())
            except self._psycopg.OperationalError:
                if not self._reader.closed:
                    raise
                return list(self._read().execute(statement, values).fetchall())

    @contextlib.contextmanager
    def transaction(self, what: str) -> Iterator[Connection]:
        """All or nothing, durable by the server's word when the block ends."""
        with self.lock, self._guard(what, "nothing of this request was acknowledged"):
            connection = self._write()
            try:
                with connection.transaction():
                    yield _Words(connection)
            except self._psycopg.OperationalError:
                self.unsure = True
                raise

    # ---- several writers -------------------------------------------------------------------------------

    def _lock(self, how: str, key: int) -> bool:
        """Take or give back a lock of this session (or of its transaction); whether that was done."""
        sql = f"SELECT pg_{how}(hashtext(%s), %s)"
        (done,) = self._write().execute(sql, [self._schema, key]).fetchone()
        return done is not False

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Meanwhile no other process appends."""
        if not self.shared:
            yield
            return
        with self.lock, self._guard("cannot keep others from writing"):
            self._lock("advisory_lock", _APPEND)
            self._held += 1
        try:
            yield
        finally:
            self._let_go(_APPEND)

    @contextlib.contextmanager
    def turn(self, wait: float | None = None) -> Iterator[None]:
        """Meanwhile no other process changes the table."""
        if not self.shared:
            yield
            return
        deadline = None if wait is None else time.monotonic() + wait
        while not self._tried(_TABLE):
            if deadline is not None and time.monotonic() >= deadline:
                raise ShopBusy("another process changes this shop's event table", hint="try again later")
            time.sleep(_POLL)
        try:
            yield
        finally:
            self._let_go(_TABLE)

    def _tried(self, key: int) -> bool:
        with self.lock, self._guard("cannot ask whose turn it is"):
            taken = self._lock("try_advisory_lock", key)
            self._held += taken
            return taken

    def _let_go(self, key: int) -> None:
        with self.lock, contextlib.suppress(StorageError, self._psycopg.Error):
            self._held -= 1  # first: where the session is gone, so is the lock
            self._lock("advisory_unlock", key)

    def arrive(self, db: Connection) -> None:
        """Wait in a transaction until nobody else appends."""
        if self.shared:
            db.execute("SELECT pg_advisory_xact_lock(hashtext(?), ?)", (self._schema, _APPEND))

    def lead(self) -> bool:
        """Whether this process leads; who leads does so until its session ends."""
        if self.readonly or not self.shared:
            return not self.readonly
        with self.lock, self._guard("cannot ask who leads"):
            self._write().execute("SELECT 1")  # a session that is gone took its locks along
            self._leads = self._leads or self._lock("try_advisory_lock", _LEADER)
            return self._leads

    def reclaim(self, *, rewrite: bool) -> bool:
        """Let the server reuse the room of deleted rows; with ``rewrite`` it writes the tables anew."""
        with self.lock, self._guard("cannot clear deleted rows"):
            for table in ("journal", "decisions", "damaged", "links", "letters"):
                self._write().execute(f"VACUUM {'FULL ' if rewrite else ''}{table}")
        return True

    def files(self) -> list[Path]:
        """None that we may look into."""
        return []

    def close(self) -> None:
        """Give the locks back and close both connections."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                with contextlib.suppress(self._psycopg.Error):
                    # By word: a session that merely ends keeps its locks until the server has cleared it away.
                    if connection is self._writer:
                        connection.execute("SELECT pg_advisory_unlock_all()")
                with contextlib.suppress(self._psycopg.Error):
                    connection.close()
        self._reader = self._writer = None
