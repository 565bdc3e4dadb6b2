"""The reference page of the server: one self-contained HTML page made from the operation table."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

import penchant
from penchant.engine import OPERATIONS, JobStatus, Operation, Problem, alternatives, error_classes
from penchant.surfaces._fields import example_of, explained, structs_in

_LOADER = jinja2.PackageLoader("penchant.surfaces", "templates")
_CODE = Markup("<code>{}</code>")


def _inline(name: str) -> str:
    source, _, _ = _LOADER.get_source(jinja2.Environment(autoescape=True), name)
    return source


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


_STYLE, _SCRIPT = _inline("reference.css"), _inline("reference.js")

PAGE_POLICY = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load: its own style and script, and answers of this server; nothing else."""


def reference_html() -> str:
    """Make the page: every operation with its fields, types, defaults, a curl line and a form to try it."""
    environment = jinja2.Environment(loader=_LOADER, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["code"] = code
    rows = list(OPERATIONS.values())
    structs = structs_in(*(row.response for row in rows), *(row.request for row in rows), JobStatus, Problem)
    requests = {row.request for row in rows}
    return environment.get_template("reference.html").render(
        version=penchant.__version__,
        style=Markup(_STYLE),
        script=Markup(_SCRIPT),
        scopes=[(scope, [_operation(row) for row in rows if row.scope == scope]) for scope in _scopes(rows)],
        structs=[_struct(struct) for struct in structs if struct not in requests],
        errors=[
            {"code": name, "status": kind.status, "exit": kind.exit_code, "text": _first(kind.__doc__)}
            for name, kind in error_classes().items()
        ],
    )


def code(text: str) -> Markup:
    """Escape a text and set what is between backticks as code.

    Example:
        >>> str(code("see `k` & ``seed``"))
        'see <code>k</code> &amp; <code>seed</code>'
    """
    parts = text.replace("``", "`").split("`")
    return Markup("").join(_CODE.format(part) if place % 2 else part for place, part in enumerate(parts))


def _scopes(rows: list[Operation]) -> list[str]:
    return list(dict.fromkeys(row.scope for row in rows))


def _first(text: str | None) -> str:
    return (text or "").strip().partition("\n\n")[0].replace("\n", " ")


def _struct(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {"name": struct.__name__, "text": _first(struct.__doc__), "fields": explained(struct)}


def _operation(row: Operation) -> dict[str, Any]:
    inputs = row.file_fields("in")
    body = {name: value for name, value in example_of(row.request).items() if name not in inputs}
    return {
        "name": row.name,
        "command": row.name.replace("_", "-"),
        "summary": row.summary,
        "paragraphs": [part.replace("\n", " ") for part in row.description.split("\n\n") if part],
        "job": row.job,
        "fields": explained(row.request),
        "responses": [struct.__name__ for struct in alternatives(row.response)],
        "body": json.dumps(body, indent=2),
        "inputs": [field for field in explained(row.request) if field.name in inputs],
        "curl": curl(row),
    }


def curl(row: Operation, base: str = "http://127.0.0.1:8000") -> str:
    """A command line that calls an operation over HTTP."""
    example = example_of(row.request)
    files = {name: value for name in row.file_fields("in") if (value := example.pop(name, None)) is not None}
    body = json.dumps(example)
    start = f"curl {base}/v1/{row.name}"
    if not files:
        return f"{start} \\\n  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(body)}"
    parts = [f"-F {shlex.quote(f'request={body};type=application/json')}"]
    for name, value in files.items():
        parts += [f"-F {name}=@{path}" for path in (value if isinstance(value, list) else [value])]
    return " \\\n  ".join([start, *parts])
