"""The generated definitions: bounded everywhere, without drift, and in step with the models."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from searchops.api import crdgen
from searchops.api.meta import parse_duration
from searchops.api.v1alpha1 import KINDS, EmbeddingModel, ReindexJob, SearchTenant

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
DEFINITIONS = {kind.kind: crdgen.definition(kind) for kind in KINDS}
SCHEMAS = {name: document["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for name, document in DEFINITIONS.items()}
every_kind = pytest.mark.parametrize("kind", sorted(SCHEMAS))

MINIMAL: dict[str, dict[str, Any]] = {
    "SearchTenant": {"model": {"name": "m"}, "fields": [{"name": "title", "type": "text", "role": "Title"}]},
    "EmbeddingModel": {
        "source": {"uri": "s3://models/a", "digest": f"sha256:{'0' * 64}"},
        "engine": {"worker": {"podTemplate": "cpu"}},
        "serving": {"pool": "default"},
        "gate": {
            "holdouts": [{"name": "core", "uri": "s3://holdouts/a", "digest": f"sha256:{'0' * 64}"}],
            "worker": {"podTemplate": "cpu"},
        },
        "rollout": {"waves": [{"name": "all", "percent": 100}]},
    },
    "ReindexJob": {"tenant": "acme", "worker": {"podTemplate": "cpu"}},
}


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of a structural schema with its path."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def parts(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """The nodes of spec and status."""
    properties = SCHEMAS[kind]["properties"]
    return [*nodes(properties["spec"], "spec"), *nodes(properties["status"], "status")]


@every_kind
def test_every_string_list_and_map_has_a_bound(kind: str) -> None:
    unbounded = [
        path
        for path, node in parts(kind)
        if (node["type"] == "string" and not ("maxLength" in node or "enum" in node))
        or (node["type"] == "array" and "maxItems" not in node)
        or ("additionalProperties" in node and "maxProperties" not in node)
    ]
    assert unbounded == []


@every_kind
def test_every_field_of_a_spec_is_explained(kind: str) -> None:
    spec = dict(nodes(SCHEMAS[kind]["properties"]["spec"], "spec"))
    items = tuple(path for path, node in spec.items() if path.endswith(("[]", "{}")) and node["type"] != "object")
    assert [path for path, node in spec.items() if not node.get("description") and path not in items] == []


@every_kind
def test_no_construct_that_the_api_server_refuses(kind: str) -> None:
    refused = {"$ref", "anyOf", "oneOf", "allOf", "const", "title", "prefixItems", "uniqueItems", "propertyNames"}
    assert [(path, refused & node.keys()) for path, node in parts(kind) if refused & node.keys()] == []


@every_kind
def test_defaults_never_stand_inside_items_nor_in_a_status(kind: str) -> None:
    found = [path for path, node in parts(kind) if "default" in node]
    assert found
    assert [path for path in found if "[]" in path or "{}" in path or path.startswith("status")] == []


@every_kind
def test_lists_of_named_things_are_maps_by_a_required_key(kind: str) -> None:
    for path, node in parts(kind):
        keys = node.get("x-kubernetes-list-map-keys", [])
        assert (node.get("x-kubernetes-list-type") == "map") == bool(keys), path
        for key in keys:
            assert key in node["items"]["required"], f"{path}: key {key} may be absent"


def test_the_lists_that_are_maps() -> None:
    found = {
        f"{kind}.{path}": node["x-kubernetes-list-map-keys"]
        for kind in SCHEMAS
        for path, node in parts(kind)
        if node.get("x-kubernetes-list-type") == "map"
    }
    assert found == {
        "SearchTenant.spec.access": ["name"],
        "SearchTenant.spec.fields": ["name"],
        "SearchTenant.status.conditions": ["type"],
        "EmbeddingModel.spec.gate.holdouts": ["name"],
        "EmbeddingModel.spec.rollout.signals": ["name"],
        "EmbeddingModel.status.signals": ["name"],
        "EmbeddingModel.status.conditions": ["type"],
        "ReindexJob.status.conditions": ["type"],
    }
    waves = SCHEMAS["EmbeddingModel"]["properties"]["spec"]["properties"]["rollout"]["properties"]["waves"]
    assert waves["x-kubernetes-list-type"] == "atomic"


def at(schema: dict[str, Any], path: str) -> dict[str, Any] | None:
    """The node under a simple path such as ``.status.conditions[?(@.type=="Ready")].status``."""
    node: dict[str, Any] | None = schema
    for step in re.sub(r"\[[^\]]*\]", ".[]", path).strip(".").split("."):
        if node is None:
            return None
        node = node.get("items") if step == "[]" else node.get("properties", {}).get(step)
    return node


@every_kind
def test_every_column_shows_a_field_that_exists(kind: str) -> None:
    columns = DEFINITIONS[kind]["spec"]["versions"][0]["additionalPrinterColumns"]
    assert columns[-1]["name"] == "Age" or any(column.get("priority") for column in columns)
    for column in columns:
        if column["jsonPath"] == ".metadata.creationTimestamp":
            assert column["type"] == "date"
            continue
        node = at(SCHEMAS[kind], column["jsonPath"])
        assert node is not None, column
        assert node["type"] == column["type"], column


@every_kind
def test_every_rule_has_a_message_and_points_at_a_field_that_exists(kind: str) -> None:
    rules = 0
    for path, node in [(kind, SCHEMAS[kind]), *parts(kind)]:
        for rule in node.get("x-kubernetes-validations", []):
            rules += 1
            assert rule["message"], path
            assert "fieldPath" not in rule or at(node, rule["fieldPath"]) is not None, (path, rule)
    assert rules >= 3


def test_names_are_bound_by_root_rules() -> None:
    limits = {kind: SCHEMAS[kind]["x-kubernetes-validations"][0]["rule"] for kind in SCHEMAS}
    assert limits == {
        "SearchTenant": "self.metadata.name.size() <= 63",
        "EmbeddingModel": "self.metadata.name.size() <= 40",
        "ReindexJob": "self.metadata.name.size() <= 63",
    }


def test_what_the_definitions_declare() -> None:
    for kind in KINDS:
        spec = DEFINITIONS[kind.kind]["spec"]
        assert DEFINITIONS[kind.kind]["metadata"] == {"name": f"{kind.plural}.searchops.dev"}
        assert spec["names"]["shortNames"] == list(kind.short_names)
        assert spec["names"]["categories"] == ["searchops"]
        assert spec["scope"] == kind.scope
        (version,) = spec["versions"]
        assert version["name"] == "v1alpha1"
        assert version["subresources"] == {"status": {}}
        assert SCHEMAS[kind.kind]["required"] == ["spec"]


def with_defaults(schema: dict[str, Any], value: Any) -> Any:
    """What the API server stores: missing fields filled in, from the outside inwards."""
    if isinstance(value, list):
        return [with_defaults(schema["items"], item) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    filled = {name: copy.deepcopy(inner["default"]) for name, inner in properties.items() if "default" in inner}
    return {name: with_defaults(properties.get(name, {}), inner) for name, inner in {**filled, **value}.items()}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.kind))
def test_defaults_of_the_schema_are_the_defaults_of_the_model(
    kind: type[SearchTenant | EmbeddingModel | ReindexJob],
) -> None:
    spec = MINIMAL[kind.kind]
    filled = with_defaults(SCHEMAS[kind.kind]["properties"]["spec"], spec)
    assert filled != spec
    document = {"metadata": {"name": "a"}, "spec": spec}
    assert kind.model_validate({**document, "spec": filled}) == kind.model_validate(document)


@every_kind
def test_every_default_meets_its_own_pattern(kind: str) -> None:
    for path, node in parts(kind):
        if "pattern" in node and "default" in node:
            assert re.search(node["pattern"], node["default"]), path
            if node["pattern"].startswith("^([0-9]+(h"):
                assert parse_duration(node["default"]).total_seconds() > 0


def test_what_is_committed_is_what_the_models_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert crdgen.main(["--check"]) == 0, capsys.readouterr().out


def test_check_tells_what_is_stale_missing_and_left_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crdgen.main(["--root", str(tmp_path)]) == 0
    assert crdgen.main(["--root", str(tmp_path), "--check"]) == 0
    folder = tmp_path / "crds"
    stale = folder / "reindexjobs.searchops.dev.yaml"
    stale.write_text(stale.read_text().replace("maximum: 256", "maximum: 255"))
    (folder / "searchtenants.searchops.dev.yaml").unlink()
    (folder / "gone.searchops.dev.yaml").write_text("kind: CustomResourceDefinition\n")
    assert crdgen.main(["--root", str(tmp_path), "--check"]) == 1
    shown = capsys.readouterr()
    assert "+                  maximum: 256" in shown.out
    assert "+  name: searchtenants.searchops.dev" in shown.out
    assert "-kind: CustomResourceDefinition\n" in shown.out
    assert "python -m searchops.api.crdgen" in shown.err


@every_kind
def test_the_charts_copy_is_kept_when_the_release_goes(kind: str) -> None:
    text = crdgen.chart_template(DEFINITIONS[kind])
    document = yaml.safe_load(text)
    assert document["metadata"].pop("annotations") == {
        "helm.sh/resource-policy": "keep",
        "argocd.argoproj.io/sync-options": "Prune=false",
    }
    assert document == yaml.safe_load(crdgen.as_yaml(DEFINITIONS[kind]))


def test_template_braces_of_a_description_are_escaped_for_helm() -> None:
    text = crdgen.chart_template({"metadata": {"name": "a"}, "spec": {"description": "uses {{title}}"}})
    assert 'uses {{ "{{" }}title}}' in text


FULL = {
    document["kind"]: document
    for path in sorted((ROOT / "tests/unit/api/full_documents").glob("*.yaml"))
    for document in [yaml.safe_load(path.read_text(encoding="utf-8"))]
}


def present(value: Any, path: str) -> Iterator[str]:
    """Every path of a document, list items as ``[]``."""
    yield path
    if isinstance(value, list):
        for item in value:
            yield from present(item, f"{path}[]")
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from present(inner, f"{path}.{name}")


@every_kind
def test_the_full_document_has_every_field(kind: str) -> None:
    found = {*present(FULL[kind]["spec"], "spec"), *present(FULL[kind]["status"], "status")}
    assert [path for path, _ in parts(kind) if "{}" not in path and path not in found] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.kind))
def test_the_full_document_goes_through_the_model_unchanged(
    kind: type[SearchTenant | EmbeddingModel | ReindexJob],
) -> None:
    document = FULL[kind.kind]
    parsed = kind.model_validate(document)
    assert parsed.spec.to_wire() == document["spec"]
    assert parsed.status.to_wire() == document["status"]
