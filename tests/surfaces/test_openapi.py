"""The OpenAPI description and the reference page of the server."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from penchant.core import EventKind
from penchant.engine import OPERATIONS, error_classes
from penchant.surfaces import openapi
from penchant.surfaces._fields import example_of, fields_of
from penchant.surfaces._page import PAGE_POLICY, code, reference_html

VERBS = {"get", "post", "delete"}


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return json.loads(json.dumps(openapi()))  # type: ignore[no-any-return]


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def test_it_has_the_shape_of_openapi(described: dict[str, Any]) -> None:
    assert re.fullmatch(r"3\.1\.\d+", described["openapi"])
    assert {"title", "version"} <= described["info"].keys()
    ids = []
    for path, item in described["paths"].items():
        assert path.startswith("/")
        for verb, operation in item.items():
            assert verb in VERBS
            ids.append(operation["operationId"])
            assert operation["summary"]
            assert set(operation["tags"]) <= {tag["name"] for tag in described["tags"]}
            for response in operation["responses"].values():
                assert "$ref" in response or response["description"]
            named = set(re.findall(r"{(\w+)}", path))
            assert named == {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert all(p["required"] for p in operation.get("parameters", []))
    assert len(ids) == len(set(ids))


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    references = {node["$ref"] for node in nodes(described) if "$ref" in node}
    assert references
    for reference in references:
        place: Any = described
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_schemas_are_valid_and_refuse_what_we_refuse(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for operation in OPERATIONS.values():
        name = operation.request.__name__
        validator = jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", **described})
        example = example_of(operation.request)
        validator.validate(example)
        operation.build(**example)  # the example in the documentation works
        assert not validator.is_valid({**example, "no_such_field": 1})
        assert set(schemas[name]["properties"] or {}) == {
            field.name for field in fields_of(operation.request)
        }


def test_every_operation_is_there_with_its_way_of_answering(described: dict[str, Any]) -> None:
    for operation in OPERATIONS.values():
        post = described["paths"][f"/v1/{operation.name}"]["post"]
        assert post["operationId"] == operation.name
        assert ("202" in post["responses"]) == operation.job
        assert ("multipart/form-data" in post["requestBody"]["content"]) == bool(operation.file_fields("in"))
        assert post["responses"]["default"]["$ref"].endswith("/Problem")


def test_the_page_has_everything(described: dict[str, Any]) -> None:
    page = reference_html()
    for operation in OPERATIONS.values():
        assert f'<section id="{operation.name}">' in page
        assert f'data-operation="{operation.name}"' in page
        for field in fields_of(operation.request):
            assert f"<td><code>{field.name}</code></td>" in page
    for name in error_classes():
        assert f'id="error-{name}"' in page
    anchors = set(re.findall(r'href="#([\w-]+)"', page))
    assert anchors <= set(re.findall(r'id="([\w-]+)"', page))


def test_the_samples_call_the_server_the_page_came_from() -> None:
    page = reference_html()
    assert page.count('<pre class="curl">curl http://127.0.0.1:8000/v1/') == len(OPERATIONS)
    assert '"http://127.0.0.1:8000", location.origin' in page


def test_on_a_narrow_screen_tables_scroll_by_themselves() -> None:
    narrow = reference_html().partition("@media (max-width: 800px)")[2].partition("</style>")[0]
    assert re.search(r"table { display: block; overflow-x: auto; }", narrow)


def test_events_are_described_though_each_is_judged_alone(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    events = schemas["ObserveRequest"]["properties"]["events"]
    assert events["items"]["$ref"].endswith("/Event")
    assert "refused alone" in events["description"]
    assert set(schemas["EventKind"]["enum"]) == {kind.value for kind in EventKind}


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = reference_html()
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert "@import" not in page
    assert " style=" not in page  # the policy would block it
    assert not re.search(r"\son\w+=", page)
    for tag in ("style", "script"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in PAGE_POLICY


def test_code_is_escaped() -> None:
    assert str(code("a `<b>` & c")) == "a <code>&lt;b&gt;</code> &amp; c"
