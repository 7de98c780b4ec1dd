"""Tenants that a real API server must refuse, each with the field's path, and those at the bounds that it must take."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from integration.crd_documents import FULL, collection_of
from searchops_sandbox.kubernetes_api import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from integration.crd_documents import Json
    from searchops_sandbox.control_plane import ControlPlane
    from searchops_sandbox.kubernetes_api import KubernetesApi

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]
TENANTS = "searchtenants"
TITLE = {"name": "title", "type": "text", "role": "Title"}


@pytest_asyncio.fixture(loop_scope="session")
async def api(definitions: ControlPlane) -> AsyncIterator[KubernetesApi]:
    async with definitions.api() as opened:
        yield opened


def tenant(name: str = "acme", **spec: Any) -> Json:
    body = {"model": {"name": "m"}, "fields": [TITLE], **spec}
    return {
        "apiVersion": "searchops.dev/v1alpha1",
        "kind": "SearchTenant",
        "metadata": {"name": name},
        "spec": body,
    }


async def refused(api: KubernetesApi, body: Json) -> str:
    """What the API server says in a dry run; empty where it takes it."""
    try:
        await api.create(collection_of(TENANTS), body, dryRun="All", fieldValidation="Strict")
    except ApiError as error:
        assert error.status in (400, 422), error
        return str(error)
    return ""


def field(name: str) -> list[Json]:
    return [TITLE, {"name": name, "type": "keyword", "role": "Filter"}]


def entry(secret: str) -> list[Json]:
    return [{"name": "storefront", "role": "Search", "secretName": secret}]


NAMES = {
    "64 characters": ("a" * 64, "metadata.name"),
    "63 and a dot": ("a" * 31 + "." + "a" * 31, "metadata.name"),
    "dotted": ("shop.acme", "metadata.name"),
    "a trailing dot": ("acme.", "metadata.name"),
    "another's generation": ("acme@g1", "metadata.name"),
    "capitals": ("Acme", "metadata.name"),
    "an underscore": ("acme_shop", "metadata.name"),
    "a combining character": ("acme\u0301", "metadata.name"),
    "empty": ("", "metadata.name"),
}


@pytest.mark.parametrize("what", NAMES)
async def test_a_name_that_could_be_two_things_is_refused(api: KubernetesApi, what: str) -> None:
    name, path = NAMES[what]
    assert path in await refused(api, tenant(name))


@pytest.mark.parametrize("name", ["a" * 63, "a", "0", "a--b", "1" * 63])
async def test_a_name_at_the_bounds_is_taken(api: KubernetesApi, name: str) -> None:
    assert await refused(api, tenant(name)) == ""


FIELDS = {
    "unicode": "größe",
    "combining": "cafe\u0301",
    "right to left": "\u0645\u0642\u0627\u0633",
    "an override": "size\u202e",
    "no break": "a\u00a0b",
    "a NUL": "a\0b",
    "a newline": "a\n",
    "quotes": 'a"b',
    "a quoted path": '"a.b"',
    "brackets": "sizes[]",
    "an index": "sizes[0]",
    "two dots": "a..b",
    "a leading dot": ".a",
    "a trailing dot": "a.",
    "only a dot": ".",
    "a reserved one": "_deleted",
    "a leading digit": "1a",
    "a hyphen": "a-b",
    "a space": "a b",
    "a star": "*",
    "an emoji": "👟",
    "64 characters": "a" * 64,
    "empty": "",
}


@pytest.mark.parametrize("what", FIELDS)
async def test_a_field_whose_name_is_no_payload_path_is_refused(api: KubernetesApi, what: str) -> None:
    assert "spec.fields[1].name: " in await refused(api, tenant(fields=field(FIELDS[what])))


@pytest.mark.parametrize("name", ["a", "A1", "a_b", "attributes.size", "a.b.c", "a.0", "x" * 63])
async def test_a_field_that_is_a_payload_path_is_taken(api: KubernetesApi, name: str) -> None:
    assert await refused(api, tenant(fields=field(name))) == ""


SECRETS = ["a..b", "a.-b", "a-.b", "-a", "a.", ".a", "A", "a_b", "ä", "a" * 254, ""]


@pytest.mark.parametrize("name", SECRETS, ids=lambda name: name[:9] or "empty")
async def test_what_no_secret_can_be_called_is_refused_before_one_is_tried(api: KubernetesApi, name: str) -> None:
    """Taken, it would fail at every write of the Secret, for good."""
    assert "spec.access[0].secretName: " in await refused(api, tenant(access=entry(name)))


@pytest.mark.parametrize("name", ["a", "a.b", "0.1", "a-b.c-d", ".".join(["a" * 62] * 4)[:253]])
async def test_what_a_tenants_secret_may_be_called_a_secret_may_be(api: KubernetesApi, name: str) -> None:
    """The API server's own rule for Secrets is the judge of ours."""
    assert await refused(api, tenant(access=entry(name))) == ""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
    await api.create("/api/v1/namespaces/merchants-eu/secrets", secret, dryRun="All")


@pytest.mark.parametrize("name", ["a..b", "a.-b", "a-.b", "-a", "a.", "A", "a_b"])
async def test_what_is_refused_no_secret_may_be(api: KubernetesApi, name: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
    with pytest.raises(ApiError):
        await api.create("/api/v1/namespaces/merchants-eu/secrets", secret, dryRun="All")


async def test_two_entries_with_one_secret_are_refused(api: KubernetesApi) -> None:
    two = [*entry("a"), {"name": "indexer", "role": "Index", "secretName": "a"}]
    answer = await refused(api, tenant(access=two))
    assert "spec.access: " in answer
    assert "two access entries name the same secretName" in answer


NUMBERS: dict[str, tuple[Json, str]] = {
    "0 shards": ({"sharding": {"shards": 0}}, "spec.sharding.shards"),
    "negative shards": ({"sharding": {"shards": -1}}, "spec.sharding.shards"),
    "65 shards": ({"sharding": {"shards": 65}}, "spec.sharding.shards"),
    "shards beyond int64": ({"sharding": {"shards": 2**63}}, "spec.sharding.shards"),
    "half a shard": ({"sharding": {"shards": 1.5}}, "spec.sharding.shards"),
    "shards as a text": ({"sharding": {"shards": "2"}}, "spec.sharding.shards"),
    "0 replicas": ({"sharding": {"replicas": 0}}, "spec.sharding.replicas"),
    "9 replicas": ({"sharding": {"replicas": 9}}, "spec.sharding.replicas"),
    "negative points": ({"quotas": {"maxPoints": -1}}, "spec.quotas.maxPoints"),
    "points beyond int64": ({"quotas": {"maxPoints": 2**63}}, "spec.quotas.maxPoints"),
    "points beyond a double": ({"quotas": {"maxPoints": 10**400}}, "spec.quotas.maxPoints"),
    "half a point": ({"quotas": {"maxPoints": 0.5}}, "spec.quotas.maxPoints"),
    "negative megabytes": ({"quotas": {"maxVectorMegabytes": -1}}, "spec.quotas.maxVectorMegabytes"),
    "megabytes as a text": ({"quotas": {"maxVectorMegabytes": "1Gi"}}, "spec.quotas.maxVectorMegabytes"),
    "negative searches": ({"quotas": {"searchesPerMinute": -5}}, "spec.quotas.searchesPerMinute"),
    "endless writes": ({"quotas": {"writesPerMinute": 2**62}}, "spec.quotas.writesPerMinute"),
    "0 backups": ({"backup": {"schedule": "0 3 * * *", "keep": 0}}, "spec.backup.keep"),
}


@pytest.mark.parametrize("what", NUMBERS)
async def test_a_number_that_means_nothing_is_refused(api: KubernetesApi, what: str) -> None:
    spec, path = NUMBERS[what]
    answer = await refused(api, tenant(**copy.deepcopy(spec)))
    where = path if what != "points beyond a double" else path.rsplit(".", 1)[-1]
    assert where in answer or "cannot unmarshal number" in answer, answer


WINDOWS = ["", "72", "h", "-1h", "1.5h", "1d", "9999999h", "999999999m", "99999999999s", "72 h", "७२h"]


@pytest.mark.parametrize("window", WINDOWS, ids=lambda text: json.dumps(text))
async def test_a_window_that_is_none_or_leaves_the_calendar_is_refused(api: KubernetesApi, window: str) -> None:
    """Taken, its end could not be computed at the deletion, and the finalizer would hold for good."""
    assert "spec.undeleteWindow: " in await refused(api, tenant(undeleteWindow=window))


@pytest.mark.parametrize("window", ["0s", "1ms", "1h30m", "2592000s", "999999h", "999999h999999h999999h999999h"])
async def test_a_window_that_ends_within_the_calendar_is_taken(api: KubernetesApi, window: str) -> None:
    assert await refused(api, tenant(undeleteWindow=window)) == ""


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"document": ""}, "spec.document"),
        ({"document": "d" * 1025}, "spec.document"),
        ({"languages": []}, "spec.languages"),
        ({"languages": ["de", "xx"]}, "spec.languages[1]"),
        ({"fields": []}, "spec.fields"),
        ({"fields": [TITLE, TITLE]}, "spec.fields[1]"),
        ({"fields": [{**TITLE, "type": "Text"}]}, "spec.fields[0].type"),
        ({"fields": [{**TITLE, "role": "title"}]}, "spec.fields[0].role"),
        ({"isolation": "Dedicated"}, "spec.isolation"),
        ({"deletionPolicy": "delete"}, "spec.deletionPolicy"),
        ({"model": {"name": "a.b"}}, "spec.model.name"),
        ({"model": {"name": "m" * 41}}, "spec.model.name"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
async def test_every_other_thing_that_is_none_is_refused(api: KubernetesApi, spec: Json, path: str) -> None:
    assert f"{path}: " in await refused(api, tenant(**copy.deepcopy(spec)))


async def test_texts_of_every_script_are_taken_where_a_text_is_for_people(api: KubernetesApi) -> None:
    document = "{title} — \u05e9\u05dc\u05d5\u05dd cafe\u0301 👟\u200d\u202e\u202c \"{attributes.size}\" \\ '{'"
    body = tenant(document=document)
    created = await api.create(collection_of(TENANTS), body, dryRun="All", fieldValidation="Strict")
    assert created["spec"]["document"] == document
    assert FULL[TENANTS]["spec"]["document"] != document
