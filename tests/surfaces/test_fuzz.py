"""Schemathesis sends what the OpenAPI document allows, and what it does not: no answer is a server error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import response_schema_conformance

from penchant.engine import Engine
from penchant.surfaces import create_app
from penchant.surfaces._body import Limits
from penchant.testing import running_server

# Each of these takes a while or ends the shop's data for others; their requests are read like all requests.
SLOW = {
    "train",
    "tune",
    "evaluate",
    "compare",
    "replay",
    "recount",
    "doctor",
    "drill",
    "backup",
    "restore",
    "init",
}
COMMON: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.generate),
    "derandomize": True,
    "database": None,
}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = tmp_path_factory.mktemp("fuzz") / "shop"
    engine = Engine.open(path)
    engine.init(name="s")
    engine.observe(events=[{"kind": "view", "user_id": f"u{n % 3}", "item_id": f"i{n}"} for n in range(9)])
    secret = engine.keys(action="create", scopes=["write", "serve", "manage", "govern"], rate=1e6).secret
    with running_server(create_app(engine, limits=Limits(body=200_000))) as url:
        schema = schemathesis.openapi.from_url(url + "/openapi.json")
        schema.config.update(headers={"Authorization": f"Bearer {secret}"})
        yield schema


def operations(described: Any) -> list[Any]:
    found = [result.ok() for result in described.get_all_operations()]
    return [one for one in found if one.path.removeprefix("/v1/") not in SLOW]


def send(described: Any, examples: int, modes: list[Any]) -> set[int]:
    """Send examples to every operation; the statuses that came back."""
    seen: set[int] = set()
    for operation in operations(described):
        for mode in modes:

            @settings(max_examples=examples, **COMMON)
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                answer = case.call()
                seen.add(answer.status_code)
                case.validate_response(answer, checks=[not_a_server_error, response_schema_conformance])
                if answer.status_code >= 400:
                    problem = json.loads(answer.content)
                    assert {"type", "title", "status", "code", "detail"} <= problem.keys()
                    assert "Traceback" not in answer.text

            try:
                ask()
            except Unsatisfiable:  # there is no wrong way to ask for a page without parameters
                assert mode is GenerationMode.NEGATIVE
                assert operation.method.upper() != "POST"
    return seen


def test_no_request_is_a_server_error(described: Any) -> None:
    seen = send(described, 4, [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    assert {200, 422} <= seen
    assert max(seen) < 500


@pytest.mark.slow
def test_no_request_is_a_server_error_at_length(described: Any) -> None:
    assert max(send(described, 150, [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])) < 500
