"""The OpenAPI 3.1 description of the server, from the operation table and the structs' own schemas."""

from __future__ import annotations

from typing import Any

import msgspec

import penchant
from penchant.engine import OPERATIONS, RESPONSE_HEADER, JobStatus, Operation, Problem, alternatives

_REF = "#/components/schemas/{name}"
_SCOPES = {
    "write": "What a shop tells: events.",
    "serve": "Answer in milliseconds: what a shop's pages call.",
    "manage": "From a raw export to a promoted model.",
    "govern": "What is kept, and the rights of the people it is about.",
}


def openapi() -> dict[str, Any]:
    """Describe every path of the server as OpenAPI 3.1."""
    structs: list[Any] = [JobStatus, Problem]
    for operation in OPERATIONS.values():
        structs += [operation.request, *alternatives(operation.response)]
    _, components = msgspec.json.schema_components(list(dict.fromkeys(structs)), ref_template=_REF)
    paths: dict[str, Any] = {f"/v1/{name}": {"post": _post(row)} for name, row in OPERATIONS.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Penchant",
            "version": penchant.__version__,
            "summary": "The interest engine of one shop.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{"url": "/"}],
        "tags": [
            *({"name": scope, "description": words} for scope, words in _SCOPES.items()),
            {"name": "jobs", "description": "Operations that take longer than a request should."},
            {"name": "health", "description": "For whatever watches the server."},
        ],
        "paths": paths | _job_paths() | _health_paths(),
        "components": {
            "schemas": components,
            "responses": {"Problem": _problem_response()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key of the shop."},
                "basic": {"type": "http", "scheme": "basic", "description": "The key as the user name."},
            },
        },
        "security": [{"bearer": []}, {"basic": []}, {}],
    }


def _schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": _REF.format(name=struct.__name__)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _post(operation: Operation) -> dict[str, Any]:
    return {
        "operationId": operation.name,
        "tags": [operation.scope],
        "summary": operation.summary,
        "description": operation.description,
        "requestBody": {"required": True, "content": _request_content(operation)},
        "responses": {**_success(operation), "default": {"$ref": "#/components/responses/Problem"}},
    }


def _request_content(operation: Operation) -> dict[str, Any]:
    content = _json(_schema(operation.request))
    inputs = operation.file_fields("in")
    if inputs:
        binary = {"type": "string", "contentMediaType": "application/octet-stream"}
        parts: dict[str, Any] = {
            name: {"description": "The file itself; repeat the part for several files.", **binary}
            for name in inputs
        }
        request = {"type": "object", "description": "The request as JSON, without its file fields."}
        content["multipart/form-data"] = {
            "schema": {"type": "object", "properties": {"request": request, **parts}},
            "encoding": {"request": {"contentType": "application/json"}},
        }
    return content


def _success(operation: Operation) -> dict[str, Any]:
    if operation.job:
        location = {"description": "Where the job is.", "schema": {"type": "string"}}
        accepted = {
            "description": f"Accepted as a job; its result is {_words(operation)}.",
            "headers": {"Location": location},
            "content": _json(_schema(JobStatus)),
        }
        return {"202": accepted}
    choices = [_schema(struct) for struct in alternatives(operation.response)]
    schema = choices[0] if len(choices) == 1 else {"anyOf": choices}
    answer: dict[str, Any] = {"description": _words(operation), "content": _json(schema)}
    if operation.file_fields("out"):
        answer["content"]["application/octet-stream"] = {}
        answer["headers"] = {
            RESPONSE_HEADER: {
                "description": "The response as JSON, where the body is the file that was asked for.",
                "schema": {"type": "string"},
            }
        }
    return {"200": answer}


def _words(operation: Operation) -> str:
    return " or ".join(f"`{struct.__name__}`" for struct in alternatives(operation.response))


def _problem_response() -> dict[str, Any]:
    return {
        "description": "What was wrong, the value, and the next step (RFC 9457).",
        "content": {"application/problem+json": {"schema": _schema(Problem)}},
    }


def _get(
    name: str, tag: str, summary: str, content: dict[str, Any], parameters: tuple[str, ...] = ()
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": content},
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    if parameters:
        text = {"type": "string"}
        described["parameters"] = [
            {"name": parameter, "in": "path", "required": True, "schema": text} for parameter in parameters
        ]
    return described


def _job_paths() -> dict[str, Any]:
    status = _json(_schema(JobStatus))
    one = ("job_id",)
    return {
        "/v1/jobs": {
            "get": _get(
                "list_jobs",
                "jobs",
                "List the jobs, newest first.",
                _json({"type": "array", "items": _schema(JobStatus)}),
            )
        },
        "/v1/jobs/{job_id}": {
            "get": _get("job", "jobs", "Ask how a job stands; at the end it holds the result.", status, one),
            "delete": _get("stop_job", "jobs", "Stop a job that waits or runs.", status, one),
        },
        "/v1/jobs/{job_id}/files/{field}": {
            "get": _get(
                "job_file",
                "jobs",
                "Fetch a file that a job wrote.",
                {"application/octet-stream": {}},
                ("job_id", "field"),
            )
        },
    }


def _health_paths() -> dict[str, Any]:
    state = _json({"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}})
    return {
        "/healthz": {"get": _get("healthz", "health", "Whether the process is alive.", state)},
        "/readyz": {
            "get": _get("readyz", "health", "Whether requests can be answered, and by which model.", state)
        },
        "/metrics": {
            "get": _get(
                "metrics",
                "health",
                "Numbers of the shop's server for Prometheus.",
                {"text/plain": {"schema": {"type": "string"}}},
            )
        },
    }
