"""`searchops explain` and `orphans` against a real API server: each trouble that the planner can find of a tenant.

The statuses are the planner's own, written to the API server as the operator would: whatever a person meets is named
with its condition, why, and what to do.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from integration.test_command_line import NAMESPACE, Terminal, path_of
from searchops.api.observed import CanaryResult, CellIdentity, SearchProbe
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.cli.explain import meanings
from searchops.controllers.cell_watch import REPORT_KEY, REPORT_MAP
from searchops.planning.cell_room import ROOM_KEY, ROOM_MAP, begun
from searchops.planning.tenant import failed, plan_tenant
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from searchops.api.v1alpha1.search_tenant_status import SearchTenantStatus
    from searchops.planning.tenant_facts import TenantFacts
    from searchops_sandbox.control_plane import ControlPlane

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

SYSTEM = "searchops-system"
LIVE = case.make_collection(case.dense(1))
MODEL = case.make_model(case.revision(1))
HOLD = begun("cell eu-1 answered 507", 3, case.NOW)
NEW: dict[str, Any] = {"annotations": {}, "finalizers": []}


def said(facts: TenantFacts, spec: dict[str, Any] | None = None, **tenant: Any) -> SearchTenantStatus:
    """What the planner says of it."""
    plan = plan_tenant(case.make_tenant(spec, **tenant), facts, case.SETTINGS, case.NOW)
    assert plan.status is not None, plan.actions
    return plan.status


def served(**changes: Any) -> TenantFacts:
    return replace(case.make_facts(LIVE, model=MODEL), **changes)


def cell(**changes: Any) -> TenantFacts:
    there = served().cell
    assert there is not None
    return served(cell=replace(there, **changes))


def stranger() -> TenantFacts:
    found = case.make_cell({case.ALIAS: "else@g1"})
    return case.make_facts(cell=found, collections=(replace(LIVE, name="else@g1", metadata={}),))


def taken() -> TenantFacts:
    secrets = case.secrets_of()
    secrets["acme-indexer"] = replace(secrets["acme-indexer"], type="Opaque")
    return served(secrets=secrets)


def bounded(points: int) -> SearchTenantStatus:
    """Of a tenant with 100 points that may have so many."""
    spec = {"quotas": {"maxPoints": points}}
    live = case.make_collection(case.dense(1), tenant=case.make_tenant(spec))
    return said(served(collections=(live,)), spec)


def condition_alone(kind: str, reason: str, message: str) -> SearchTenantStatus:
    """What another part says beside the plan, on a tenant that is Ready."""
    return case.expected_status(case.dense(1), conditions={kind: ("False", reason, message)})


TROUBLES: dict[str, tuple[Callable[[], SearchTenantStatus], str, str, str]] = {
    "no cell has room": (
        lambda: said(case.make_facts(cell=case.make_cell(cell=case.registration(capacity=0))), **NEW),
        "Placed",
        "NoCapacity",
        "0 usable collections",
    ),
    "no cell matches": (
        lambda: said(case.make_facts(), {"placement": {"cellSelector": {"matchLabels": {"region": "mars"}}}}, **NEW),
        "Placed",
        "NoMatchingCell",
        "mars",
    ),
    "its cell is gone": (lambda: said(served(cell=None)), "Ready", "CellMissing", "eu-1"),
    "its cell is silent": (
        lambda: said(cell(reachable=False, error="refused")),
        "Ready",
        "CellUnreachable",
        "does not answer",
    ),
    "its cell's key is weak": (
        lambda: said(cell(registration=case.registration(api_key="short"))),
        "Ready",
        "CellKeyTooWeak",
        "shorter than 32 bytes",
    ),
    "its cell is too old": (lambda: said(cell(version="1.9.0")), "Ready", "CellTooOld", "update it"),
    "its cell is another": (
        lambda: said(cell(identity=CellIdentity("staging", "eu-1", "cluster-1"))),
        "Ready",
        "CellIdentityMismatch",
        "staging",
    ),
    "a name is taken": (lambda: said(stranger()), "Ready", "Conflict", "else@g1"),
    "its collection is lost": (
        lambda: said(case.make_facts(), status={"collection": f"{case.ALIAS}@g1", "cell": "eu-1"}),
        "Provisioned",
        "CollectionLost",
        "restore",
    ),
    "a Secret's name is taken": (lambda: said(taken()), "AccessReady", "SecretConflict", "acme-indexer"),
    "its quota is nearly used up": (lambda: bounded(110), "QuotaOK", "NearQuota", "90 %"),
    "its quota is used up": (lambda: bounded(100), "QuotaOK", "QuotaExceeded", "allows 100"),
    "its cell is full": (lambda: said(served(holds={"eu-1": HOLD})), "QuotaOK", "CellFull", "3 tenants on it"),
    "a query fails": (lambda: said(served(probe=SearchProbe(False, "403"))), "Searchable", "SearchFailed", "403"),
    "it is not isolated": (
        lambda: said(served(canary=CanaryResult("a token of shop/b opened it"))),
        "Isolated",
        "IsolationBroken",
        "shop/b",
    ),
    "its model is not there": (
        lambda: said(replace(served(), model=None)),
        "ModelBound",
        "ModelNotFound",
        "create it",
    ),
    "its schema needs a rebuild": (
        lambda: said(served(collections=(replace(LIVE, shards=2),)), {"paused": True}),
        "SchemaInSync",
        "RebuildRequired",
        "cannot be changed in place",
    ),
    "its profile is unknown": (
        lambda: said(served(), {"retrieval": {"profile": "nobody"}}),
        "Ready",
        "InvalidSpec",
        "nobody",
    ),
    "its backup is stale": (
        lambda: condition_alone("BackupFresh", "BackupStale", "there is none yet, wanted that of 2026-11-24"),
        "BackupFresh",
        "BackupStale",
        "there is none yet",
    ),
    "its backup failed": (
        lambda: condition_alone("BackupFresh", "BackupFailed", "it broke"),
        "BackupFresh",
        "BackupFailed",
        "it broke",
    ),
    "a write was refused": (
        lambda: failed(case.make_tenant(), "CellFull", "cell eu-1 answered 507", case.NOW),
        "Ready",
        "CellFull",
        "507",
    ),
}


@pytest_asyncio.fixture(loop_scope="session")
async def terminal(definitions: ControlPlane) -> AsyncIterator[Terminal]:
    async with definitions.api() as api:
        tenant = case.make_tenant().to_wire()
        body = {
            "apiVersion": "searchops.dev/v1alpha1",
            "kind": "SearchTenant",
            "metadata": {"name": "troubled", "namespace": NAMESPACE},
            "spec": tenant["spec"],
        }
        await api.create(path_of("searchtenants"), body)
        yield Terminal(definitions, api)
        await api.delete(path_of("searchtenants", "troubled"))


async def show(terminal: Terminal, status: SearchTenantStatus) -> None:
    """The status on the API server, of the generation that is there."""
    path = path_of("searchtenants", "troubled")
    there = await terminal.api.get(path)
    generation = there["metadata"]["generation"]
    body: dict[str, Any] = status.to_wire()
    body["observedGeneration"] = generation
    for condition in body["conditions"]:
        condition["observedGeneration"] = generation
    empty = {key: None for key in there.get("status", {}) if key not in body}
    await terminal.api.patch(f"{path}/status", {"status": {**empty, **body}})


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_each_trouble_is_explained_with_its_condition_and_what_to_do(terminal: Terminal, trouble: str) -> None:
    make, kind, reason, why = TROUBLES[trouble]
    status = make()
    await show(terminal, status)
    code, output = await terminal("explain", "tenant", "troubled", "-n", NAMESPACE)
    lines = output.splitlines()
    named = [line for line in lines if line.startswith(f"{kind}=") and f" {reason}: " in line]
    assert len(named) == 1, output
    assert why in named[0]
    assert f"  {reason}: {meanings()['SearchTenant'][reason]}" in lines[lines.index("what to do:") :], output
    ready = next(item for item in status.conditions if item.type == "Ready")
    assert code == (0 if ready.status == "True" else 1)
    assert lines[0].startswith("Ready=") == (ready.status != "True"), "what decides comes first"


async def test_every_reason_of_a_tenant_says_what_to_do() -> None:
    assert set(meanings()["SearchTenant"]) == {str(reason) for reason in TenantReason}
    assert all(len(text) > 20 for text in meanings()["SearchTenant"].values())


async def test_a_tenant_that_nobody_has_looked_at_and_one_in_order_are_told_apart(terminal: Terminal) -> None:
    code, output = await terminal("explain", "tenant", "troubled", "-n", NAMESPACE)
    assert (code, output) == (1, "the operator has seen generation none, the object is at 1\n")
    await show(terminal, case.expected_status(case.dense(1), conditions={"BackupFresh": ("True", "BackedUp", "new")}))
    assert await terminal("explain", "tenant", "troubled", "-n", NAMESPACE) == (0, "everything holds\n")


@pytest.mark.parametrize(
    ("arguments", "said_of_it"),
    [
        (
            ("tenant", "nobody", "-n", NAMESPACE),
            f"there is no tenant {NAMESPACE}/nobody; see what there is: kubectl get",
        ),
        (
            ("tenant", "troubled", "-n", "nowhere"),
            "there is no tenant nowhere/troubled; see what there is: kubectl get",
        ),
        (("tenant", "troubled"), "wanted --namespace NAME"),
        (("shop", "troubled", "-n", NAMESPACE), "kind 'shop'; wanted one of tenant, model, reindex"),
    ],
)
async def test_what_is_not_there_is_said_with_the_way_to_find_it(
    terminal: Terminal, arguments: tuple[str, ...], said_of_it: str
) -> None:
    code, output = await terminal("explain", *arguments)
    assert (code, said_of_it in output) == (2, True), output


async def keep(terminal: Terminal, name: str, data: dict[str, str]) -> None:
    path = f"/api/v1/namespaces/{SYSTEM}/configmaps"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": SYSTEM}, "data": data}
    await terminal.api.create(path, body)


async def drop(terminal: Terminal, *names: str) -> None:
    for name in names:
        await terminal.api.delete(f"/api/v1/namespaces/{SYSTEM}/configmaps/{name}")


async def test_orphans_are_listed_by_cell_with_what_to_do_and_silence_is_unknown(terminal: Terminal) -> None:
    code, output = await terminal("orphans")
    assert (code, "there is no report on cells in namespace searchops-system" in output) == (3, True)
    rows: dict[str, dict[str, Any]] = {
        "eu-1": {"answers": True, "usable": 80, "orphans": ["prod.shop.gone@g1", "prod.shop.gone@g2"]},
        "eu-2": {"answers": False, "usable": 80},
        "eu-3": {"answers": True, "usable": 80, "orphans": []},
    }
    await keep(terminal, REPORT_MAP, {REPORT_KEY: json.dumps(rows)})
    try:
        code, output = await terminal("orphans")
        assert code == 0
        assert {"eu-1 prod.shop.gone@g1", "eu-1 prod.shop.gone@g2"} <= set(output.splitlines())
        assert "not answered, so unknown: eu-2" in output
        assert "what to do: a SearchTenant of the namespace and name" in output
        code, output = await terminal("orphans", "-o", "json")
        found = json.loads(output[output.index("{") :])
        assert (code, found) == (0, {"eu-1": rows["eu-1"]["orphans"], "eu-2": None, "eu-3": []})
        code, output = await terminal("orphans", "-o", "yaml")
        assert (code, "wanted lines or json" in output) == (2, True)
        code, output = await terminal("orphans", "--operator-namespace", "elsewhere")
        assert (code, "runs elsewhere" in output) == (3, True)
    finally:
        await drop(terminal, REPORT_MAP)


async def test_a_cell_that_is_held_and_a_rotation_that_waits_are_in_the_status(terminal: Terminal) -> None:
    await keep(terminal, REPORT_MAP, {REPORT_KEY: json.dumps({"eu-1": {"answers": True, "usable": 80}})})
    await keep(terminal, ROOM_MAP, {ROOM_KEY: json.dumps({"eu-1": HOLD.model_dump()})})
    waiting = "2 of 3 tokens are of the new key; waiting for shop/one"
    data = {"phase": "Resigning", "resigned": "2", "total": "3", "message": waiting}
    await keep(terminal, "searchops-cell-eu-1", data)
    try:
        _, output = await terminal("status")
        assert f"cell eu-1 is out of disk or memory since {case.STAMP}, with 3 tenants on it" in output
        assert f"key of cell eu-1: Resigning, 2 of 3 tokens; {waiting}" in output
        _, output = await terminal("status", "-o", "json")
        document = json.loads(output)
        assert document["cells"]["eu-1"]["fullSince"] == case.STAMP
        assert document["keyRotations"] == [{"cell": "eu-1", **data}]
    finally:
        await drop(terminal, REPORT_MAP, ROOM_MAP, "searchops-cell-eu-1")
