"""Webhooks: what operations did, told to a shop's other systems, signed, and told again until they take it.

A message waits in ``outbox.db``, which is on disk before the operation answers; a server delivers it. Headers and
signature follow the Standard Webhooks specification (https://www.standardwebhooks.com), so its libraries verify
them. Messages hold counts and names of models, never ids of people.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import logging
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from penchant.core import iso
from penchant.core.errors import InputError, StorageError
from penchant.engine import _collect_requests as cr
from penchant.engine._shop import named
from penchant.engine._worker import Worker

if TYPE_CHECKING:
    from penchant.engine._shop import Shop, WebhookSettings

log = logging.getLogger("penchant.webhooks")

FIRST, LONGEST, TRIES = (
    5.0,
    3600.0,
    12,
)  # seconds before the second try, at most between two; 2.4 hours in all
_TIMEOUT = 10.0
_LARGEST = 100_000  # bytes of a message; what is larger is told without its data
_LOOK = 1.0
_LANES = 16  # webhooks that are served at a time
_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, hook TEXT NOT NULL, type TEXT NOT NULL,
    ts INTEGER NOT NULL, body BLOB NOT NULL, tries INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'waiting', said TEXT)
"""


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``: HMAC-SHA256 of id, time and body.

    Args:
        secret: ``whsec_`` and the key in base64, or any text.
        message_id: The value of ``webhook-id``.
        timestamp: The value of ``webhook-timestamp``, in seconds.
        body: The body as it is sent.

    Example:
        >>> signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
        ...           b'{"test": 2432232314}')
        'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def secret_of(settings: WebhookSettings) -> str:
    """The secret of a webhook, or what the environment variable holds that it names as ``$NAME``.

    Raises:
        InputError: The variable is not set.
    """
    found = named(settings.secret)
    if not found:
        raise InputError(
            "the variable of a webhook's secret is not set", value=settings.secret, hint="export it"
        )
    return found


class Outbox:
    """The messages of one shop that are to be delivered."""

    def __init__(self, path: Path) -> None:
        self.path = path / "outbox.db"

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=10, isolation_level=None)) as db:
                db.execute("PRAGMA synchronous=FULL")
                db.execute(_SCHEMA)
                yield db
        except sqlite3.Error as error:
            raise StorageError(
                f"the outbox of webhooks cannot be used: {error}", value=str(self.path)
            ) from error

    def add(self, hook: str, kind: str, ts: int, body: bytes) -> None:
        """Keep a message durably."""
        row = (f"msg_{secrets.token_hex(12)}", hook, kind, ts, body)
        with self._open() as db:
            db.execute("INSERT INTO outbox (id, hook, type, ts, body) VALUES (?, ?, ?, ?, ?)", row)

    def waiting(self, now: float) -> list[str]:
        """The webhooks for which there are messages whose time has come."""
        if not self.path.exists():
            return []
        with self._open() as db:
            found = db.execute(
                "SELECT DISTINCT hook FROM outbox WHERE state = 'waiting' AND due <= ?", (now,)
            )
            return [hook for (hook,) in found]

    def due(self, hook: str, now: float) -> list[tuple[int, str, bytes, int]]:
        """The messages of one webhook whose time has come: number, id, body, tries so far."""
        with self._open() as db:
            return db.execute(
                "SELECT number, id, body, tries FROM outbox WHERE state = 'waiting' AND hook = ? AND due <= ?"
                " ORDER BY number LIMIT 100",
                (hook, now),
            ).fetchall()

    def settle(self, number: int, *, tries: int, state: str, due: float, said: str) -> None:
        """Note what came of a try; a message that was taken is forgotten."""
        with self._open() as db:
            if state == "delivered":
                db.execute("DELETE FROM outbox WHERE number = ?", (number,))
                return
            db.execute(
                "UPDATE outbox SET tries = ?, state = ?, due = ?, said = ? WHERE number = ?",
                (tries, state, due, said, number),
            )

    def again(self) -> int:
        """Try the given-up ones anew; returns how many they are."""
        if not self.path.exists():
            return 0
        with self._open() as db:
            return db.execute(
                "UPDATE outbox SET state = 'waiting', tries = 0, due = 0 WHERE state = 'dead'"
            ).rowcount

    def all(self) -> list[cr.Delivery]:
        """Everything not delivered, the oldest first."""
        if not self.path.exists():
            return []
        with self._open() as db:
            rows = db.execute(
                "SELECT id, hook, type, ts, tries, state, said FROM outbox ORDER BY number"
            ).fetchall()
        names = ("id", "webhook", "type", "ts", "tries", "state", "said")
        return [cr.Delivery(**dict(zip(names, row, strict=True))) for row in rows]


def announce(shop: Shop, kind: str, response: Any) -> None:
    """Put what an operation did into the outbox of every webhook that asked for it."""
    hooks = [name for name, settings in shop.config.webhooks.items() if kind in settings.on]
    if not hooks:
        return
    ts = shop.clock()
    told = {"type": kind, "timestamp": iso(ts), "shop": shop.config.name, "data": _data(kind, response)}
    body = msgspec.json.encode(told)
    if len(body) > _LARGEST:
        body = msgspec.json.encode({**told, "data": {}})
    outbox = Outbox(shop.path)
    for hook in hooks:
        outbox.add(hook, kind, ts, body)


def _data(kind: str, response: Any) -> Mapping[str, Any]:
    """The answer of the operation; of an erasure its counts alone."""
    plain = msgspec.to_builtins(response)
    if kind == "erase_user":
        return {"removed": plain["removed"]}
    return plain if isinstance(plain, dict) else {"answer": plain}


class Deliverer(Worker):
    """A thread of a server that sends what is in the outbox, to each webhook apart: none waits for a slow one."""

    def __init__(self, shop: Shop) -> None:
        import httpx

        self._httpx = httpx
        self._shop, self._outbox = shop, Outbox(shop.path)
        self._busy: dict[str, Future[None]] = {}  # by webhook
        self._lanes = ThreadPoolExecutor(_LANES, thread_name_prefix="penchant-webhook")
        super().__init__("webhooks")

    def _run(self) -> None:
        while not self._stop.wait(_LOOK):
            try:
                self._begin()
            except Exception as error:  # whatever it is, the next look comes
                log.error("webhooks wait: %s", type(error).__name__)

    def _begin(self) -> None:
        for hook in self._outbox.waiting(time.time()):
            if hook not in self._busy or self._busy[hook].done():
                self._busy[hook] = self._lanes.submit(self._deliver_or_log, hook)

    def step(self) -> None:
        """Try everything that is due once."""
        self._begin()
        for lane in list(self._busy.values()):
            lane.result()

    def _deliver_or_log(self, hook: str) -> None:
        try:
            self._deliver(hook)
        except Exception as error:  # whatever it is, the next look comes
            log.error("the webhook %s waits: %s", hook, type(error).__name__)

    def _deliver(self, hook: str) -> None:
        for number, message_id, body, tries in self._outbox.due(hook, time.time()):
            settings = self._shop.config.webhooks.get(hook)
            if settings is None:
                taken, said = None, "there is no webhook of this name any more"
            else:
                taken, said = self._send(settings, message_id, body)
            tries += 1
            wait = min(FIRST * 2 ** (tries - 1), LONGEST)
            state = "delivered" if taken else "dead" if taken is None or tries >= TRIES else "waiting"
            self._outbox.settle(number, tries=tries, state=state, due=time.time() + wait, said=said)
            if state == "dead":
                log.error("the webhook %s did not take a message: %s", hook, said)
            if self._stop.is_set():
                return

    def close(self) -> None:
        """End the threads after the messages they are at."""
        super().close()
        self._lanes.shutdown()

    def _send(self, settings: WebhookSettings, message_id: str, body: bytes) -> tuple[bool | None, str]:
        """Whether it was taken, and what was said; None where asking again makes no sense."""
        timestamp = int(time.time())
        try:
            headers = {
                "content-type": "application/json",
                "webhook-id": message_id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": signature(secret_of(settings), message_id, timestamp, body),
            }
            answer = self._httpx.post(
                settings.url, content=body, headers=headers, timeout=_TIMEOUT, follow_redirects=False
            )
        except (self._httpx.HTTPError, self._httpx.InvalidURL, InputError, ValueError) as error:
            return False, error.message if isinstance(error, InputError) else type(error).__name__
        return (None if answer.status_code == 410 else answer.is_success), f"HTTP {answer.status_code}"


def webhooks(shop: Shop, request: cr.WebhooksRequest) -> cr.WebhooksReport:
    """What waits to be delivered or was given up, after putting the latter back where that is asked for."""
    outbox = Outbox(shop.path)
    again = outbox.again() if request.retry else 0
    return cr.WebhooksReport(deliveries=outbox.all(), retried=again)
