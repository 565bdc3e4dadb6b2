"""The one tree of errors.

    PenchantError
    ├── InputError            what was sent is wrong: fix the input            (HTTP 422, exit 2)
    │   ├── UnknownColumns    the file's columns need a mapping                (HTTP 422, exit 2)
    │   ├── UnreadableFile    the file is damaged, empty or of no known form   (HTTP 422, exit 2)
    │   ├── NotFound          the thing named does not exist                   (HTTP 404, exit 2)
    │   ├── InvalidCursor     a cursor that was not made for this request      (HTTP 400, exit 2)
    │   ├── Malformed         what was sent cannot be read at all              (HTTP 400, exit 2)
    │   └── TooLarge          more was sent than one request may hold          (HTTP 413, exit 2)
    ├── ShopError             the shop folder cannot be used as it is          (HTTP 409, exit 3)
    │   └── ShopBusy          another writer holds it                          (HTTP 409, exit 3)
    ├── StorageError          the disk refused: full, read-only, damaged       (HTTP 507, exit 4)
    ├── ModelError            a model cannot be trained, loaded or promoted    (HTTP 409, exit 5)
    │   └── ArtifactError     an artifact's files do not match its hash        (HTTP 409, exit 5)
    ├── MissingExtra          an optional dependency is not installed          (HTTP 501, exit 6)
    ├── BrokenRows            rows of a file could not be believed             (HTTP 422, exit 7)
    ├── ErasureIncomplete     files still hold the id of an erased person      (HTTP 409, exit 8)
    ├── Unauthorized          no key was sent that opens this server           (HTTP 401, exit 9)
    ├── Forbidden             the key may not do this                          (HTTP 403, exit 9)
    ├── TooManyRequests       more requests than the key may send              (HTTP 429, exit 10)
    ├── Overloaded            there is no room for the request now             (HTTP 429, exit 10)
    ├── ServiceError          a service that the shop asks gives no answer     (HTTP 502, exit 11)
    └── Interrupted           stopped by the user; what is safe is said        (HTTP 499, exit 130)

Every error says what was wrong, the value, and the next step.
"""

from __future__ import annotations

from typing import Any, ClassVar


class PenchantError(Exception):
    """Base of all errors a user can meet.

    Args:
        message: What was wrong, in one sentence.
        value: The offending value, shown shortened; None when there is none.
        hint: The next step for the person who reads it.
        path: Where in the request or file, such as ``$.k`` or ``row 17``.

    Example:
        >>> str(PenchantError("k is too small", value=0, hint="use k of at least 1"))
        'k is too small (got 0): use k of at least 1'
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(
        self, message: str, *, value: object = None, hint: str | None = None, path: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.value = value
        self.hint = hint
        self.path = path

    def __str__(self) -> str:
        text = self.message
        if self.value is not None:
            shown = repr(self.value)
            text += f" (got {shown if len(shown) <= 120 else shown[:117] + '...'})"
        if self.path:
            text += f" at {self.path}"
        return f"{text}: {self.hint}" if self.hint else text


class InputError(PenchantError, ValueError):
    """What was sent is wrong; the caller can mend it."""

    code = "invalid_input"
    status = 422
    exit_code = 2


class UnknownColumns(InputError):
    """A file whose columns no dialect and no mapping explains; ``proposal`` is a mapping to edit."""

    code = "unknown_columns"
    proposal: Any = None  # a ``penchant.data.Mapping``


class UnreadableFile(InputError):
    """A file that is damaged, empty, or of no form we read."""

    code = "unreadable_file"


class NotFound(InputError):
    """The thing named does not exist."""

    code = "not_found"
    status = 404


class InvalidCursor(InputError):
    """A cursor that is damaged, forged, or was made for another person, place or shop."""

    code = "invalid_cursor"
    status = 400


class Malformed(InputError):
    """What was sent cannot be read at all: it is no JSON, or JSON with two meanings."""

    code = "malformed"
    status = 400


class TooLarge(InputError):
    """More was sent than one request may hold; in parts it is welcome."""

    code = "too_large"
    status = 413


class ShopError(PenchantError):
    """The shop folder cannot be used as it is."""

    code = "shop"
    status = 409
    exit_code = 3


class ShopBusy(ShopError):
    """Another writer holds the shop."""

    code = "shop_busy"


class StorageError(PenchantError):
    """The disk refused: full, read-only or damaged."""

    code = "storage"
    status = 507
    exit_code = 4


class ModelError(PenchantError):
    """A model cannot be trained, loaded or promoted."""

    code = "model"
    status = 409
    exit_code = 5


class ArtifactError(ModelError):
    """An artifact's files are missing or do not match its hash."""

    code = "artifact"


class MissingExtra(PenchantError, ImportError):
    """An optional dependency is not installed.

    Args:
        extra: The extra that brings it, as in ``pip install 'penchant[train]'``.
        purpose: What needed it.
    """

    code = "missing_extra"
    status = 501
    exit_code = 6

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs an optional dependency that is not installed",
            hint=f"pip install 'penchant[{extra}]'",
        )


class BrokenRows(PenchantError):
    """Rows of a file could not be believed, or none of them could be used; the good rows are stored all the same.

    Only the command line raises it: ``penchant ingest`` and ``penchant catalog`` end with its exit code after their
    answer, so that a script notices. From Python and over HTTP the answer is whole, and its ``broken`` says how many
    there are.
    """

    code = "broken_rows"
    status = 422
    exit_code = 7


class ErasureIncomplete(PenchantError):
    """The person was erased, but files in the shop's folder still hold the id; ``value`` names them."""

    code = "erasure_incomplete"
    status = 409
    exit_code = 8


class Unauthorized(PenchantError):
    """No key was sent that opens this server. Whether it is unknown, expired or revoked is not told."""

    code = "unauthorized"
    status = 401
    exit_code = 9


class Forbidden(PenchantError):
    """The key is known, but may not do this."""

    code = "forbidden"
    status = 403
    exit_code = 9


class TooManyRequests(PenchantError):
    """More requests than the key may send; ``after`` says in how many seconds the next one is welcome."""

    code = "too_many_requests"
    status = 429
    exit_code = 10
    after: float = 1.0


class Overloaded(PenchantError):
    """There is no room for the request now: nothing was done, and the same request may be sent again.

    ``after`` says in how many seconds; over HTTP it is ``Retry-After``.
    """

    code = "overloaded"
    status = 429
    exit_code = 10
    after: float = 1.0


class ServiceError(PenchantError):
    """A service that the shop asks gives no answer.

    ``again`` says whether another try may go better, ``wait`` after how many seconds, where the service tells.
    """

    code = "service"
    status = 502
    exit_code = 11
    again: bool = False
    wait: float | None = None


class Interrupted(PenchantError):
    """Stopped by the user; the message says what is safe and how to go on."""

    code = "interrupted"
    status = 499
    exit_code = 130
