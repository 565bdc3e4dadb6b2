"""Requests and responses of the operations that guard a shop: keys and the access log."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from penchant.core import Micros, Noun, Purpose
from penchant.core.errors import InputError
from penchant.engine._operation import POSITIONAL, InFile, OutFile, Scope
from penchant.engine._requests import PersonRequest
from penchant.privacy import Choice


class KeysRequest(Noun, frozen=True):
    """List, create, rotate or revoke API keys."""

    action: Annotated[
        Literal["list", "create", "rotate", "revoke"],
        Meta(description="what to do", examples=["create"], extra=POSITIONAL),
    ] = "list"
    key: Annotated[str, Meta(max_length=100, description="id of the key to rotate or revoke")] | None = None
    name: Annotated[str, Meta(max_length=100, description="what a new key is for, in the shop's words")] = ""
    scopes: Annotated[
        list[Scope],
        Meta(
            description="what a new key may call: write (events), serve, manage, govern", examples=[["write"]]
        ),
    ] = []
    days: Annotated[float, Meta(gt=0, le=36_500, description="a new key ends after so many days")] | None = (
        None
    )
    rate: Annotated[
        float,
        Meta(gt=0, le=1_000_000, description="requests a second a new key may send to each operation"),
    ] = 1000.0
    grace: Annotated[
        float, Meta(ge=0, le=8760, description="hours that a rotated key is still taken beside the new one")
    ] = 24.0

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            InputError: A key is made without scopes, or none is named to rotate or revoke.
        """
        if self.action == "create" and not self.scopes:
            raise InputError(
                "a key needs scopes", hint="choose from write, serve, manage, govern", path="$.scopes"
            )
        if self.action in {"rotate", "revoke"} and not self.key:
            raise InputError(f"{self.action} needs a key", hint="give its id; see the list", path="$.key")
        if self.action != "create" and (self.scopes or self.days or self.name):
            raise InputError(
                f"name, scopes and days are of a new key, not of {self.action}",
                hint="a rotated key keeps what it may do; make a new one for other scopes",
                path="$.action",
            )


class Key(Noun, frozen=True):
    """An API key, without its secret."""

    id: str
    name: str
    scopes: list[Scope]
    rate: float  # requests a second to each operation
    created_ts: Micros
    expires_ts: Micros | None
    state: Literal["active", "expired", "revoked"]
    replaced_by: str | None = None


class KeysReport(Noun, frozen=True):
    """The keys of the shop, newest first; after create and rotate also the new key, shown only now."""

    keys: list[Key]
    secret: str | None = None
    note: str | None = None


class AccessLogRequest(Noun, frozen=True):
    """Ask who did what."""

    k: Annotated[int, Meta(ge=1, le=10_000, description="how many entries at most")] = 100
    operation: Annotated[str, Meta(max_length=100, description="only calls of this operation")] | None = None
    key: Annotated[str, Meta(max_length=100, description="only calls with this key")] | None = None
    since: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=253_402_300_799_000_000,
                description="only calls at or after this moment, microseconds",
            ),
        ]
        | None
    ) = None


class Access(Noun, frozen=True):
    """One call of a manage or govern operation."""

    ts: str  # ISO 8601, UTC
    operation: str
    outcome: str  # ok, or the code of the error
    seconds: float
    key: str | None = None  # id of the API key; None: somebody at the machine, or a server that asks for none
    request_id: str | None = None


class AccessLogReport(Noun, frozen=True):
    """Calls, newest first."""

    entries: list[Access]


class ConsentRequest(PersonRequest, frozen=True):
    """Note what a person allows, or ask."""

    grant: Annotated[
        list[Purpose], Meta(description="purposes allowed from now on", examples=[["personalise"]])
    ] = []
    withdraw: Annotated[list[Purpose], Meta(description="purposes allowed no longer")] = []
    source: Annotated[str, Meta(max_length=100, description="where the choice was made, such as banner")] = (
        "api"
    )

    def check(self) -> None:
        """Refuse a choice about nobody, or one that says both.

        Raises:
            InputError: No id is given, or a purpose is granted and withdrawn at once.
        """
        super().check()
        if both := sorted(set(self.grant) & set(self.withdraw)):
            raise InputError("granted and withdrawn at once", value=both, hint="choose", path="$.withdraw")


class ConsentReport(Noun, frozen=True):
    """What a person allows now, and every choice that led there."""

    subject: str
    allows: list[Purpose]
    history: list[Choice]


class BackupRequest(Noun, frozen=True):
    """Write a backup."""

    out: Annotated[OutFile, Meta(description="the backup, a tar file", examples=["shop.tar"])]
    keys_out: (
        Annotated[OutFile, Meta(description="of a sealed shop: the keys of people, to be kept apart")] | None
    ) = None


class BackupReport(Noun, frozen=True):
    """What a backup holds."""

    out: str
    keys_out: str | None
    files: int
    bytes: int
    events: int
    seconds: float


class RestoreRequest(Noun, frozen=True):
    """Make a shop from a backup."""

    file: Annotated[InFile, Meta(description="the backup")]
    keys: Annotated[InFile, Meta(description="of a sealed shop: the keys of people")] | None = None
    erasures: (
        Annotated[
            InFile, Meta(description="the erasures noted since: erasures.log of the shop that was lost")
        ]
        | None
    ) = None


class RestoreReport(Noun, frozen=True):
    """What was restored."""

    path: str
    made_ts: Micros  # when the backup was
    events: int
    events_erased: int  # that the backup had, and the restored shop has no more
    erased: int  # people erased again
    seconds: float


class DrillRequest(Noun, frozen=True):
    """Prove that a backup can be restored."""

    file: Annotated[InFile, Meta(description="the backup; none given: one is made")] | None = None
    keys: Annotated[InFile, Meta(description="of a sealed shop: the keys beside it")] | None = None


class DrillReport(Noun, frozen=True):
    """A restored shop that answered, and how long it took to get there."""

    events: int
    erased: int
    model_id: str
    bytes: int
    backup_seconds: float | None
    restore_seconds: float
    first_answer_seconds: float


class ReloadRequest(Noun, frozen=True):
    """Read the settings anew."""


class ReloadReport(Noun, frozen=True):
    """Which tables of ``shop.toml`` are other than before."""

    changed: list[str]


__all__ = [
    name
    for name, thing in list(globals().items())
    if isinstance(thing, type) and issubclass(thing, Noun) and thing.__module__ == __name__
]
