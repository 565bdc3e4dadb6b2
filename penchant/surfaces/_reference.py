"""The reference pages of the documentation, as Markdown made from the code itself."""

from __future__ import annotations

import datetime as dt
import inspect
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from penchant import core
from penchant.engine import (
    OPERATIONS,
    JobStatus,
    Operation,
    Problem,
    ShopConfig,
    alternatives,
    built_in_settings,
    error_classes,
)
from penchant.surfaces._fields import Field, example_of, explained, structs_in
from penchant.surfaces._options import command_line
from penchant.surfaces._page import curl

_HEAD = "<!-- Made by docs/build.py from the code: change it there. -->\n\n"
_SCOPES = {
    "manage": "Manage: from a raw export to a promoted model",
    "write": "Write: what a shop tells",
    "serve": "Serve: what a shop's pages call",
    "govern": "Govern: what is kept, and people's rights",
}
_COLUMN_COMMENT = re.compile(r'pa\.field\("(\w+)"[^#\n]*#\s*(.+)')


def reference_pages() -> dict[str, str]:
    """Make all pages: file name under ``docs/reference`` -> Markdown."""
    pages = {
        "index.md": _index(),
        "operations.md": _operations(),
        "types.md": _types(),
        "http.md": _http(),
        "events.md": _events(),
        "catalogue.md": _catalogue(),
        "settings.md": _settings(),
        "errors.md": _errors(),
    }
    return {name: _HEAD + text.rstrip() + "\n" for name, text in pages.items()}


def _index() -> str:
    rows = [
        ("[Operations](operations.md)", "every call, the same in Python, on the command line and over HTTP"),
        ("[Types](types.md)", "what the answers are made of"),
        ("[HTTP](http.md)", "paths, files, jobs, limits"),
        ("[Events](events.md)", "fields and kinds of what a shop sends"),
        ("[Catalogue](catalogue.md)", "fields of an item"),
        ("[Settings](settings.md)", "every key of `shop.toml`"),
        ("[Errors](errors.md)", "codes, statuses, exit codes"),
    ]
    return "# Reference\n\nThese pages are made from the code and cannot be older than it.\n\n" + _table(
        ("page", "content"), rows
    )


# -- operations and their types -------------------------------------------------------------------------


def _operations() -> str:
    parts = [
        "# Operations\n\nOne table of operations is the Python methods of `Engine`, the commands of "
        "`penchant`, the paths of the server and the methods of the remote client. The request's fields are "
        "keyword arguments in Python, options on the command line and JSON over HTTP.\n",
    ]
    for scope, title in _SCOPES.items():
        parts.append(f"## {title}\n")
        parts += [_operation(row) for row in OPERATIONS.values() if row.scope == scope]
    return "\n".join(parts)


def _operation(row: Operation) -> str:
    answers = " or ".join(_link(struct) for struct in alternatives(row.response))
    parts = [
        f"### {row.name}\n",
        f"{_sentence(row.summary)} Gives {answers}.{' Over HTTP it is a job.' if row.job else ''}\n",
        f"{_sentence(row.description)}\n" if row.description else "",
        _fields(explained(row.request), request=True),
        f"```\n{_command(row)}\n```\n",
        f"```python\n{_python(row)}\n```\n",
        f"```\n{curl(row)}\n```\n",
    ]
    return "\n".join(part for part in parts if part)


def _command(row: Operation) -> str:
    return shlex.join(["penchant", *command_line(row, example_of(row.request), where="DIR")])


def _python(row: Operation) -> str:
    arguments = ", ".join(f"{name}={_literal(value)}" for name, value in example_of(row.request).items())
    return f"engine.{row.name}({arguments})"


def _literal(value: Any) -> str:
    """A value as Python text in the style of our formatter: double quotes."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(inner)}" for key, inner in value.items()) + "}"
    return "[" + ", ".join(map(_literal, value)) + "]" if isinstance(value, list) else repr(value)


def _types() -> str:
    responses = [row.response for row in OPERATIONS.values()]
    requests = {row.request for row in OPERATIONS.values()}
    structs = [
        struct
        for struct in structs_in(*responses, *requests, JobStatus, Problem)
        if struct not in requests and struct is not core.Event
    ]
    parts = ["# Types\n\nWhat the answers are made of. Times are microseconds since 1970, UTC.\n"]
    for struct in sorted(structs, key=lambda struct: struct.__name__):
        parts += [f"## {struct.__name__}\n", f"{_doc(struct)}\n", _fields(explained(struct), request=False)]
    return "\n".join(parts)


def _http() -> str:
    rows = [
        ("`POST /v1/<operation>`", "the request as JSON; 200 and the response, or 202 and a job"),
        ("`GET /v1/jobs`", "all jobs, newest first"),
        ("`GET /v1/jobs/<id>`", "how a job stands; at the end its result or error"),
        ("`GET /v1/jobs/<id>/files/<field>`", "the file that was asked for in that field"),
        ("`DELETE /v1/jobs/<id>`", "stop a job"),
        ("`GET /openapi.json`", "OpenAPI 3.1"),
        ("`GET /docs`", "a reference page with forms to try the operations"),
        ("`GET /metrics`", "numbers of the shop's server for Prometheus; scope govern"),
        ("`GET /healthz`, `GET /readyz`", "whether the process lives; whether requests can be answered"),
    ]
    jobs = ", ".join(f"`{row.name}`" for row in OPERATIONS.values() if row.job)
    sending = ", ".join(f"`{row.name}`" for row in OPERATIONS.values() if row.file_fields("in"))
    return f"""# HTTP

`penchant serve --shop DIR` serves one shop, and with `--shop` repeated several, apart from each other. It listens
to this machine alone unless `--host` says otherwise.

**Keys.** A shop that has an API key (`penchant keys create --scopes write --shop DIR`) answers nobody without one; a
server that others can reach, or that has several shops, does not start before each shop has a key. Send it as
`Authorization: Bearer KEY`, as the user name of Basic authentication, or as `X-Api-Key`; a key in the address is
refused. The key chooses the shop. Scopes: {_scope_words()}. A job is seen by keys that may call its operation.
`/healthz`, `/readyz`, `/docs` and `/openapi.json` need no key. Each key has a rate for each operation; above it the
answer is 429 with `Retry-After`.

{_table(("request", "answer"), rows)}
**Errors** are problem details (RFC 9457, `application/problem+json`): see [`Problem`](types.md#problem) and
[Errors](errors.md).

**Jobs.** {jobs} answer 202 with a [`JobStatus`](types.md#jobstatus) and its `Location`. Jobs run one
after another. Those that only read the store run in a process of their own, so that the serving process stays small.
A job that was running when the server stopped is `interrupted`; send the same request again. What a job says
about a person is kept in memory only, for fifteen minutes at most.

**Files.** A request never names a file of the server. Files to read ({sending}) are parts of a
`multipart/form-data` request, each named like its field, beside the JSON in a part named `request`. Where a
request asks for a file to be written, that file is the body of the answer and the response is in the header
`Penchant-Response`, as JSON; a job keeps the file at `/v1/jobs/<id>/files/<field>`.

**Limits.** A JSON request has at most 5 MB, one with files at most 4 GB (`--max-upload`); a client may pause
for 30 seconds at most. Requests from pages of other sites are refused.
"""


def _scope_words() -> str:
    rows = {
        scope: [f"`{row.name}`" for row in OPERATIONS.values() if row.scope == scope] for scope in _SCOPES
    }
    return "; ".join(f"**{scope}** for {', '.join(names)}" for scope, names in rows.items())


# -- events, catalogue, settings, errors ----------------------------------------------------------------


def _events() -> str:
    kinds = [
        (
            f"`{kind.value}`",
            str(kind.code),
            "yes" if kind.value in core.SEQUENCE_KINDS else "beside it" if kind.value == "impression" else "",
            "yes" if kind.value in core.TARGET_KINDS else "",
        )
        for kind in core.EventKind
    ]
    return f"""# Events

{_doc(core.Event)}

{_fields(explained(core.Event), request=True)}
## In files

A file that has the columns `kind`, `ts` or `timestamp`, and `user_id` or `anonymous_id` is read as it is; the others
may be missing. Its times may be ISO 8601 (`2026-05-01T09:12:00Z`) or numbers since 1970, whose size tells seconds,
milliseconds and microseconds apart. JSON that is sent to `observe` knows `ts` in microseconds only.

## Kinds

A kind *in the sequence* is part of what models read of a person; the newest {core.HISTORY_SHOWN} items that were
shown are read beside it. One that *is predicted* says that the person turned to the item: it is what next-item models
learn to foresee.

{_table(("kind", "number at rest", "in the sequence", "is predicted"), kinds)}"""


def _catalogue() -> str:
    comments = dict(_COLUMN_COMMENT.findall(inspect.getsource(core._schema)))
    rows = [
        (
            f"`{field.name}`",
            _arrow(field.type),
            "" if field.nullable else "yes",
            _cell(comments.get(field.name, "")),
        )
        for field in core.CATALOG_SCHEMA
    ]
    return f"""# Catalogue

An item has the names that Google Merchant gave its fields. Only `id` is required. Further columns are kept
in `attributes`.

{_table(("field", "type", "required", "meaning"), rows)}"""


def _arrow(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_arrow(kind.value_type)}"
    if pa.types.is_integer(kind):
        return "whole number"
    return "number" if pa.types.is_floating(kind) else "text"


def _settings() -> str:
    parts = [
        "# Settings\n\nEvery key of `shop.toml`. One that is unknown or of the wrong type is refused by name.\n"
    ]
    tables: list[tuple[str, type[msgspec.Struct]]] = [("", ShopConfig)]
    for field in msgspec.structs.fields(ShopConfig):
        inner = structs_in(field.type)
        if inner:
            kind: Any = getattr(field.type, "__origin__", None)
            listed = {list: "[[{}]]", dict: "[{}.NAME]"}.get(kind, "[{}]")
            tables.append((listed.format(field.encode_name), inner[0]))
    named = {name.strip("[]").removesuffix(".NAME") for name, _ in tables}
    for title, struct in tables:
        fields = [field for field in explained(struct) if title or field.name not in named]
        parts += [f"## {title or 'The top'}\n", f"{_doc(struct)}\n", _fields(fields, request=True)]
        if title == "[train]":
            parts += [_model_settings()]
    return "\n".join(parts)


def _model_settings() -> str:
    """The tables below ``[train]``: settings of each kind of model."""
    parts = [
        """### [train.settings.KIND]

What differs from the defaults of one kind of model, in a table of its own:

```toml
[train.settings.sequence]
dropout = 0.3

[train.settings.tags]
hidden = [64]
optimiser = "sgd"
```

A kind or a field that does not exist, or a value that does not fit, is refused before training or measuring
begins. `--size` of a request wins over `size` here. TOML knows no null: None below means left out, and then
the size, the data or validation decides.
"""
    ]
    for kind, struct in built_in_settings().items():
        parts += [
            f"### [train.settings.{kind}]\n",
            f"{_doc(struct)}\n",
            _fields(explained(struct), request=True),
        ]
    return "\n".join(parts)


def _errors() -> str:
    rows = [
        (
            f"`{name}`",
            f"`{kind.__name__}`",
            str(kind.status),
            str(kind.exit_code),
            _cell(_doc(kind).partition(". ")[0]),
        )
        for name, kind in error_classes().items()
    ]
    return f"""# Errors

One tree of errors for Python, the command line and HTTP. Every error says what was wrong, the value, and the
next step; the command line prints it as `error:` and `hint:` and ends with the exit code.

{_table(("code", "class", "HTTP status", "exit code", "meaning"), rows)}"""


# -- Markdown -------------------------------------------------------------------------------------------


def _doc(thing: type[Any]) -> str:
    """The words of a docstring before its sections."""
    kept = []
    for block in (inspect.getdoc(thing) or "").split("\n\n"):
        if re.match(r"(Args|Example|Raises|Returns):", block):
            break
        kept.append(block.replace("\n", " "))
    return _sentence("\n\n".join(kept))


def _sentence(text: str) -> str:
    return text.replace("``", "`")


def _link(struct: type[msgspec.Struct]) -> str:
    return f"[`{struct.__name__}`](types.md#{struct.__name__.lower()})"


def _cell(text: str) -> str:
    return _sentence(text).replace("|", "\\|").replace("\n", " ")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _fields(fields: Iterable[Field], *, request: bool) -> str:
    rows = []
    for field in fields:
        notes = [field.description] if field.description else []
        if request and field.limits:
            notes.append(f"({field.limits})")
        cells = [f"`{field.name}`", _cell(field.type)]
        cells += [_default(field)] if request else []
        rows.append([*cells, _cell(" ".join(notes))])
    if not rows:
        return ""
    return _table(("field", "type", *(["default"] if request else []), "meaning"), rows)


def _default(field: Field) -> str:
    if field.required:
        return "required"
    if field.default is None or isinstance(field.default, msgspec.Struct):
        return ""
    if isinstance(field.default, dt.date):
        return f"`{field.default.isoformat()}`"
    if isinstance(field.default, float):
        return f"`{field.default:g}`"
    return _cell(f"`{json.dumps(field.default)}`")
