"""The definitions on a real API server: what is right goes through, every rule and bound refuses, naming the field."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import pytest_asyncio
import yaml

from integration.crd_documents import (
    DEFINITIONS,
    FULL,
    MISSING,
    NAMESPACE,
    ROOT,
    SCHEMAS,
    BadField,
    bad_fields,
    collection_of,
    not_refused,
    refusal,
    with_bad_field,
)
from searchops_sandbox.kubernetes_api import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from integration.crd_documents import Json
    from searchops_sandbox.control_plane import ControlPlane
    from searchops_sandbox.kubernetes_api import KubernetesApi

pytestmark = pytest.mark.integration
on_the_session_loop = pytest.mark.asyncio(loop_scope="session")
every_kind = pytest.mark.parametrize("plural", sorted(FULL))


@pytest_asyncio.fixture(loop_scope="session")
async def api(definitions: ControlPlane) -> AsyncIterator[KubernetesApi]:
    async with definitions.api() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def stored(api: KubernetesApi) -> AsyncIterator[dict[str, Json]]:
    """The full document of every kind, stored with its status, as the API server gives it back."""
    result = {}
    for plural, document in FULL.items():
        body = {key: value for key, value in document.items() if key != "status"}
        created = await api.create(collection_of(plural), body, fieldValidation="Strict")
        path = f"{collection_of(plural)}/{created['metadata']['name']}"
        await api.patch(f"{path}/status?fieldValidation=Strict", {"status": document["status"]})
        result[plural] = await api.get(path)
    yield result
    for plural, document in FULL.items():
        await api.delete(f"{collection_of(plural)}/{document['metadata']['name']}")


@every_kind
@on_the_session_loop
async def test_the_full_document_round_trips(stored: dict[str, Json], plural: str) -> None:
    assert stored[plural]["spec"] == FULL[plural]["spec"]
    assert stored[plural]["status"] == FULL[plural]["status"]


@every_kind
@on_the_session_loop
async def test_the_columns_show_the_documents_values(
    definitions: ControlPlane, stored: dict[str, Json], plural: str
) -> None:
    short = DEFINITIONS[plural]["spec"]["names"]["shortNames"][0]
    shown = await definitions.kubectl("get", short, "-n", NAMESPACE, "-o", "wide")
    header, line = shown.splitlines()
    wanted = DEFINITIONS[plural]["spec"]["versions"][0]["additionalPrinterColumns"]
    assert header.split() == ["NAME", *(column["name"].upper() for column in wanted)]
    assert len(re.split(r"\s{2,}", line.strip())) == len(wanted) + 1, line
    assert stored[plural]["metadata"]["name"] in await definitions.kubectl("get", "searchops", "-A", "-o", "name")


@every_kind
@pytest.mark.parametrize("part", ["spec", "status"])
@on_the_session_loop
async def test_every_bound_of_every_field_refuses_and_names_it(
    api: KubernetesApi, stored: dict[str, Json], plural: str, part: str
) -> None:
    schema = SCHEMAS[plural]["properties"][part]
    document = stored[plural] if part == "status" else FULL[plural]
    wanted = list(bad_fields(schema, document[part], (part,)))
    assert len(wanted) >= 40
    seen: list[str] = []
    for start in range(0, len(wanted), 16):
        batch = wanted[start : start + 16]
        seen += await asyncio.gather(*(not_refused(api, plural, document, bad) for bad in batch))
    assert not any(seen), "\n".join(filter(None, seen))


@every_kind
@pytest.mark.parametrize("steps", ["", "spec", "deep"])
@on_the_session_loop
async def test_unknown_fields_are_refused_by_strict_validation(api: KubernetesApi, plural: str, steps: str) -> None:
    deep = {
        "searchtenants": ("spec", "fields", 0),
        "embeddingmodels": ("spec", "rollout", "waves", 0),
        "reindexjobs": ("spec", "budget"),
    }
    path: tuple[str | int, ...] = {"": (), "spec": ("spec",), "deep": deep[plural]}[steps]
    bad = BadField((*path, "colour"), "blue", "unknown field")
    answer = await refusal(api, plural, with_bad_field(FULL[plural], bad))
    assert f'unknown field "{bad.path}"' in answer


class BadRule(NamedTuple):
    """One violated CEL rule."""

    plural: str
    field: str
    message: str
    edits: dict[tuple[str | int, ...], Any]


def selector_wave(index: int) -> dict[tuple[str | int, ...], Any]:
    return {("spec", "rollout", "waves", index): {"name": "odd", "selector": {}, "percent": 100}}


LONG_KEY = {"k" * 318: "a"}
RULES = {
    "tenant: long name": BadRule(
        "searchtenants", "metadata.name", "more than 63 characters", {("metadata", "name"): "a" * 64}
    ),
    "tenant: dotted name": BadRule("searchtenants", "metadata.name", "contains a dot", {("metadata", "name"): "a.b"}),
    "model: long name": BadRule(
        "embeddingmodels", "metadata.name", "more than 40 characters", {("metadata", "name"): "a" * 41}
    ),
    "model: dotted name": BadRule("embeddingmodels", "metadata.name", "contains a dot", {("metadata", "name"): "a.b"}),
    "job: long name": BadRule(
        "reindexjobs", "metadata.name", "more than 63 characters", {("metadata", "name"): "a" * 64}
    ),
    "job: dotted name": BadRule("reindexjobs", "metadata.name", "contains a dot", {("metadata", "name"): "a.b"}),
    "tenant: shared with shards": BadRule(
        "searchtenants", "spec.sharding.shards", "has no shards of its own", {("spec", "isolation"): "Shared"}
    ),
    "tenant: shared with a backup": BadRule(
        "searchtenants", "spec.backup", "backups are snapshots of whole collections", {("spec", "isolation"): "Shared"}
    ),
    "tenant: a snapshot of what is shared": BadRule(
        "searchtenants",
        "spec.deletionPolicy",
        "a snapshot of a shared collection would hold other tenants too",
        {("spec", "isolation"): "ShardKey", ("spec", "deletionPolicy"): "Snapshot"},
    ),
    "tenant: a direct writer to what is shared": BadRule(
        "searchtenants",
        "spec.access",
        "nobody but the gateway may write to a shared collection",
        {("spec", "isolation"): "ShardKey", ("spec", "access", 1, "direct"): True},
    ),
    "tenant: no title": BadRule(
        "searchtenants",
        "spec.fields",
        "at least one field needs the role Title",
        {("spec", "fields", 1, "role"): "Body"},
    ),
    "tenant: one Secret twice": BadRule(
        "searchtenants",
        "spec.access",
        "two access entries name the same secretName",
        {("spec", "access", 1, "secretName"): "acme-storefront"},
    ),
    "tenant: a direct reader": BadRule(
        "searchtenants", "spec.access", "direct is for writers only", {("spec", "access", 0, "direct"): True}
    ),
    "tenant: a long label key": BadRule(
        "searchtenants",
        "spec.placement.cellSelector.matchLabels",
        "keys have at most 317 characters",
        {("spec", "placement", "cellSelector", "matchLabels"): LONG_KEY},
    ),
    "model: a wave of both kinds": BadRule(
        "embeddingmodels", "spec.rollout.waves[1]", "exactly one of selector and percent", selector_wave(1)
    ),
    "model: a wave of neither kind": BadRule(
        "embeddingmodels",
        "spec.rollout.waves[0]",
        "exactly one of selector and percent",
        {("spec", "rollout", "waves", 0, "selector"): MISSING},
    ),
    "model: the last wave is not all": BadRule(
        "embeddingmodels",
        "spec.rollout.waves",
        "the last wave must have percent 100",
        {("spec", "rollout", "waves", 1, "percent"): 99},
    ),
    "model: the last wave has no percent": BadRule(
        "embeddingmodels",
        "spec.rollout.waves",
        "the last wave must have percent 100",
        {("spec", "rollout", "waves", 1): {"name": "all", "selector": {}}},
    ),
    "model: slow searches without a bound": BadRule(
        "embeddingmodels",
        "spec.rollout.signals[1]",
        "SlowSearches, and no other signal, has slowerThan",
        {("spec", "rollout", "signals", 1, "slowerThan"): MISSING},
    ),
    "model: a bound of another signal": BadRule(
        "embeddingmodels",
        "spec.rollout.signals[0]",
        "SlowSearches, and no other signal, has slowerThan",
        {("spec", "rollout", "signals", 0, "slowerThan"): "1s"},
    ),
    "job: two sources": BadRule(
        "reindexjobs",
        "spec.source",
        "exactly one of fromCollection: true and uri",
        {("spec", "source", "fromCollection"): True},
    ),
    "job: no source": BadRule(
        "reindexjobs",
        "spec.source",
        "exactly one of fromCollection: true and uri",
        {("spec", "source", "uri"): MISSING},
    ),
}
FROZEN = {
    "job: another tenant": BadRule(
        "reindexjobs", "spec.tenant", "tenant cannot change", {("spec", "tenant"): "other-tenant"}
    ),
    "job: another revision": BadRule(
        "reindexjobs", "spec.revision", "revision cannot change", {("spec", "revision"): "other-r1-00000000"}
    ),
    "job: no revision any more": BadRule(
        "reindexjobs", "spec.revision", "revision cannot change", {("spec", "revision"): MISSING}
    ),
}


def with_edits(document: Json, rule: BadRule) -> Json:
    for steps, value in rule.edits.items():
        document = with_bad_field(document, BadField(steps, value, ""))
    return document


@pytest.mark.parametrize("name", sorted(RULES))
@on_the_session_loop
async def test_every_rule_refuses_what_it_should(api: KubernetesApi, name: str) -> None:
    rule = RULES[name]
    answer = await refusal(api, rule.plural, with_edits(FULL[rule.plural], rule))
    assert f"{rule.field}: " in answer
    assert rule.message in answer


@pytest.mark.parametrize("name", sorted(FROZEN))
@on_the_session_loop
async def test_what_is_frozen_stays(api: KubernetesApi, stored: dict[str, Json], name: str) -> None:
    rule = FROZEN[name]
    changed = with_edits(stored[rule.plural], rule)
    with pytest.raises(ApiError) as refused:
        await api.replace(f"{collection_of(rule.plural)}/{changed['metadata']['name']}?dryRun=All", changed)
    assert f"{rule.field}: " in str(refused.value)
    assert rule.message in str(refused.value)


def test_no_rule_is_without_a_document_that_it_refuses() -> None:
    """Rules of a status are the operator's own affair, but the label key's rule is one of them."""
    messages = {rule.message for rule in (*RULES.values(), *FROZEN.values())}
    declared = {
        (plural, rule["message"])
        for plural, schema in SCHEMAS.items()
        for node in _nodes(schema)
        for rule in node.get("x-kubernetes-validations", ())
    }
    assert len(declared) >= 12
    assert [entry for entry in declared if not any(message in entry[1] for message in messages)] == []


def _nodes(schema: Json) -> Iterator[Json]:
    yield schema
    for inner in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            yield from _nodes(inner)


@on_the_session_loop
async def test_a_minimal_tenant_gets_the_defaults(api: KubernetesApi) -> None:
    body = {
        "apiVersion": "searchops.dev/v1alpha1",
        "kind": "SearchTenant",
        "metadata": {"name": "minimal"},
        "spec": {"model": {"name": "m"}, "fields": [{"name": "title", "type": "text", "role": "Title"}]},
    }
    created = await api.create(collection_of("searchtenants"), body, dryRun="All", fieldValidation="Strict")
    assert created["spec"]["isolation"] == "Collection"
    assert created["spec"]["sharding"] == {"shards": 1, "replicas": 1}
    assert created["spec"]["fields"] == body["spec"]["fields"]  # type: ignore[index]
    assert "access" not in created["spec"]
    assert "status" not in created


EXAMPLES = [
    (path, document)
    for path in sorted((ROOT / "examples").rglob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    if document and document["apiVersion"] == "searchops.dev/v1alpha1"
]


@pytest.mark.parametrize(
    ("path", "document"), EXAMPLES, ids=[f"{path.stem}-{document['metadata']['name']}" for path, document in EXAMPLES]
)
@on_the_session_loop
async def test_every_example_is_valid(api: KubernetesApi, path: Path, document: Json) -> None:
    plural = next(name for name, crd in DEFINITIONS.items() if crd["spec"]["names"]["kind"] == document["kind"])
    assert await refusal(api, plural, document) == "", path
