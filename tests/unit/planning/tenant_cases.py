"""Tenants, models, cells and collections that the tenant planner's tests are made of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from searchops.api.meta import Condition, format_time
from searchops.api.observed import (
    AccessSecretState,
    CellIdentity,
    CellRegistration,
    CellState,
    CollectionState,
    SearchProbe,
)
from searchops.api.retrieval import BUILTIN_PROFILES, Binding
from searchops.api.v1alpha1.embedding_model import EmbeddingModel
from searchops.api.v1alpha1.embedding_model_status import RevisionStatus
from searchops.api.v1alpha1.reindex_job import ReindexJob
from searchops.api.v1alpha1.search_tenant import SearchTenant
from searchops.api.v1alpha1.search_tenant_status import (
    BindingStatus,
    IsolationStatus,
    PreviousStatus,
    RebuildStatus,
    SearchTenantStatus,
    UsageStatus,
)
from searchops.planning.names import (
    ACCESS_SECRET_TYPE,
    CELL_ANNOTATION,
    FINALIZER,
    KEY_BINDING,
    KEY_PENDING,
    KEY_PREVIOUS,
    KEY_RELEASED_AT,
)
from searchops.planning.schema import Owner, collection_design, dense_binding, lexical_binding, side_of
from searchops.planning.tenant import plan_tenant
from searchops.planning.tenant_access import inputs_digest
from searchops.planning.tenant_facts import TenantFacts, TenantSettings

if TYPE_CHECKING:
    from searchops.api.observed import CollectionDesign
    from searchops.planning.tenant_facts import TenantPlan

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
STAMP = "2026-11-24T12:00:00Z"
LONG_AGO = NOW - timedelta(days=30)
KEY = "k" * 40
IDENTITY = CellIdentity("prod", "", "cluster-1")
SETTINGS = TenantSettings("prod", "https://search.example", timedelta(days=30), timedelta(seconds=30))
OWNER = Owner("prod", "uid-1", "shop", "ns-uid", "acme")
ALIAS = "prod.shop.acme"
DIGEST = "sha256:" + "0" * 64
PROFILE = BUILTIN_PROFILES["default"]
FIELDS = [
    {"name": "sku", "type": "keyword", "role": "Code"},
    {"name": "title", "type": "text", "role": "Title"},
    {"name": "price", "type": "float", "role": "Filter"},
]
ACCESS = [
    {"name": "storefront", "role": "Search", "secretName": "acme-storefront"},
    {"name": "indexer", "role": "Index", "secretName": "acme-indexer"},
]


def make_tenant(
    spec: dict[str, Any] | None = None, *, status: dict[str, Any] | None = None, **metadata: Any
) -> SearchTenant:
    """A placed tenant with its finalizer; `metadata` replaces parts of that."""
    return SearchTenant.model_validate(
        {
            "metadata": {
                "name": "acme",
                "namespace": "shop",
                "uid": "uid-1",
                "generation": 3,
                "annotations": {CELL_ANNOTATION: "eu-1"},
                "finalizers": [FINALIZER],
                **metadata,
            },
            "spec": {"model": {"name": "enc"}, "fields": FIELDS, "access": ACCESS, **(spec or {})},
            "status": status or {},
        }
    )


def revision(number: int, space: str | None = None) -> RevisionStatus:
    """A revision of the model `enc`; its space is `s<number>` unless it inherits one."""
    return RevisionStatus(
        revision=f"enc-r{number}-{number:08x}",
        number=number,
        digest=DIGEST,
        space=f"s{number}" if space is None else space or None,
        dimension=8,
    )


def make_model(
    active: RevisionStatus | None = None,
    *,
    candidate: RevisionStatus | None = None,
    fraction: str | None = None,
    spoken: bool = True,
    retiring: tuple[RevisionStatus, ...] = (),
) -> EmbeddingModel:
    """The EmbeddingModel `enc`; with a fraction its waves have started."""
    status: dict[str, Any] = {"retiring": [item.to_wire() for item in retiring]}
    if spoken:
        status["nextNumber"] = 9
    if active is not None:
        status["active"] = active.to_wire()
    if candidate is not None:
        status["candidate"] = candidate.to_wire()
    if fraction is not None:
        status["wave"] = {"name": "w", "index": 0, "startedAt": STAMP, "fraction": fraction}
    worker = {"podTemplate": "gpu"}
    return EmbeddingModel.model_validate(
        {
            "metadata": {"name": "enc", "uid": "model-uid", "generation": 1},
            "spec": {
                "source": {"uri": "s3://models/enc", "digest": DIGEST},
                "engine": {"backend": "ONNXRuntime", "worker": worker},
                "serving": {"pool": "default", "canaryPool": "canary"},
                "gate": {"holdouts": [{"name": "core", "uri": "s3://h/1", "digest": DIGEST}], "worker": worker},
                "rollout": {"waves": [{"name": "all", "percent": 100}]},
            },
            "status": status,
        }
    )


def registration(name: str = "eu-1", *, api_key: str = KEY, capacity: int = 100, **labels: str) -> CellRegistration:
    """A registered cell."""
    return CellRegistration(name, labels, (f"https://{name}.example:6333",), 6334, capacity, api_key=api_key)


def make_cell(
    aliases: dict[str, str] | None = None,
    collections: tuple[str, ...] = (),
    *,
    cell: CellRegistration | None = None,
    **changes: Any,
) -> CellState:
    """A reachable cell of ours."""
    cell = cell or registration()
    identity = CellIdentity("prod", cell.name, "cluster-1")
    return replace(CellState(cell, True, "", identity, frozenset(collections), aliases or {}), **changes)


def lexical(generation: int = 1, *, at: datetime = LONG_AGO, tenant: SearchTenant | None = None) -> Binding:
    """The lexical binding of a generation."""
    return lexical_binding((tenant or make_tenant()).spec, PROFILE, side_of(ALIAS, generation), at)


def dense(
    number: int,
    generation: int = 1,
    *,
    space: str | None = None,
    at: datetime = LONG_AGO,
    tenant: SearchTenant | None = None,
) -> Binding:
    """The binding to a revision."""
    spec = (tenant or make_tenant()).spec
    return dense_binding(spec, PROFILE, revision(number, space), side_of(ALIAS, generation), at)


def design_of(
    binding: Binding,
    generation: int = 1,
    *,
    tenant: SearchTenant | None = None,
    lifted: bool = False,
    filling: bool = False,
) -> CollectionDesign:
    """The collection of a generation as it should be created."""
    made = tenant or make_tenant()
    return collection_design(made, OWNER, generation, binding, lifted=lifted, filling=filling)


def make_collection(
    binding: Binding,
    generation: int = 1,
    *,
    pending: Binding | None = None,
    previous: Binding | None = None,
    released: datetime | None = None,
    tenant: SearchTenant | None = None,
    **changes: Any,
) -> CollectionState:
    """A generation as it stands when everything declared is there."""
    lifted = pending is not None or previous is not None
    made = design_of(binding, generation, tenant=tenant, lifted=lifted, filling=pending is not None)
    vectors = dict(made.dense)
    for item in (pending, previous):
        if item is not None and item.vector and item.dimension and item.side == binding.side:
            vectors[item.vector] = item.dimension
    metadata = dict(made.metadata)
    if pending is not None:
        metadata[KEY_PENDING] = pending.to_metadata()
    if previous is not None:
        metadata[KEY_PREVIOUS] = previous.to_metadata()
    if released is not None:
        metadata[KEY_RELEASED_AT] = format_time(released)
    state = CollectionState(
        name=made.name,
        points=100,
        dense=vectors,
        sparse=frozenset(made.sparse),
        indexes=dict(made.indexes),
        shards=made.shards,
        replicas=made.replicas,
        strict=made.strict,
        metadata=metadata,
    )
    return replace(state, **changes)


def rebind(collection: CollectionState, **values: str | None) -> CollectionState:
    """The collection with metadata keys set (by `binding`, `pending`, …) or removed."""
    names = {"binding": KEY_BINDING, "pending": KEY_PENDING, "previous": KEY_PREVIOUS}
    metadata = dict(collection.metadata)
    for name, value in values.items():
        key = names.get(name, f"searchops.dev/{name.replace('_', '-')}")
        metadata.pop(key, None)
        if value is not None:
            metadata[key] = value
    return replace(collection, metadata=metadata)


def secrets_of(
    tenant: SearchTenant | None = None, *, renew: datetime = NOW + timedelta(days=9), cell: CellState | None = None
) -> dict[str, AccessSecretState]:
    """The Secrets of every access entry, as they were written by us."""
    found = {}
    for entry in (tenant or make_tenant()).spec.access:
        digest = inputs_digest(entry, OWNER, cell or make_cell(), SETTINGS)
        found[entry.secret_name] = AccessSecretState(
            entry.secret_name, ACCESS_SECRET_TYPE, "uid-1", digest, format_time(renew), "token"
        )
    return found


def make_facts(
    *collections: CollectionState,
    live: int | None = None,
    model: EmbeddingModel | None = None,
    sides: bool = True,
    cell: CellState | None = None,
    **changes: Any,
) -> TenantFacts:
    """Facts of a provisioned tenant: the live generation is the first one, each generation has its side."""
    if cell is None:
        aliases = {}
        if collections:
            number = live if live is not None else int(collections[0].name.rsplit("@g", 1)[1])
            aliases[ALIAS] = f"{ALIAS}@g{number}"
        if sides:
            for item in collections:
                aliases.setdefault(side_of(ALIAS, int(item.name.rsplit("@g", 1)[1])), item.name)
        cell = make_cell(aliases, tuple(item.name for item in collections))
    facts = TenantFacts(
        identity=IDENTITY,
        namespace_uid="ns-uid",
        cells=(cell,),
        cell=cell,
        collections=collections,
        model=model if model is not None else make_model(),
        secrets=secrets_of(),
        probe=SearchProbe(True),
    )
    return replace(facts, **changes)


def make_job(name: str, *, phase: str | None = None, verified: bool = False, message: str = "") -> ReindexJob:
    """A ReindexJob as its own controller left it."""
    conditions = []
    if verified:
        conditions.append({"type": "Verified", "status": "True", "reason": "Verified"})
    if message:
        conditions.append({"type": "Ready", "status": "False", "reason": "WorkerFailed", "message": message})
    return ReindexJob.model_validate(
        {
            "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}"},
            "spec": {"tenant": "acme", "worker": {"podTemplate": "gpu"}},
            "status": {"phase": phase, "conditions": conditions},
        }
    )


def foreseen(tenant: SearchTenant, facts: TenantFacts) -> SearchTenant:
    """The tenant once its status shows the rebuild that starts next, where one does."""
    first = plan_tenant(tenant, facts, SETTINGS, NOW)
    plan = first.status.plan if first.status is not None else None
    if first.actions or plan is None or plan.state != "Planned":
        return tenant
    return tenant.model_copy(update={"status": tenant.status.model_copy(update={"plan": plan})})


def plan_once_foreseen(tenant: SearchTenant, facts: TenantFacts) -> TenantPlan:
    """The pass after the one that only shows a rebuild, without `status.plan`.

    What that says, and that it comes first, is compared in `test_tenant_forecast_plans`.
    """
    found = plan_tenant(foreseen(tenant, facts), facts, SETTINGS, NOW)
    if found.status is None:
        return found
    return replace(found, status=found.status.model_copy(update={"plan": None}))


GOOD = {
    "AccessReady": ("True", "TokensIssued", f"2 Secrets hold tokens on {ALIAS}"),
    "BackupFresh": ("Unknown", "NotConfigured", "spec.backup is not set"),
    "ModelBound": ("True", "Bound", f"bound to {revision(1).revision} (active)"),
    "Placed": ("True", "Placed", "on cell eu-1"),
    "Provisioned": ("True", "Provisioned", f"{ALIAS}@g1 behind {ALIAS}"),
    "QuotaOK": ("True", "WithinQuota", "within spec.quotas"),
    "Ready": ("True", "Ready", "provisioned, searchable with its own token, bound as its model wants"),
    "SchemaInSync": ("True", "InSync", "declared fields are as they should"),
    "Searchable": ("True", "Searchable", "a real query through the alias with the tenant's token answered"),
}


def conditions_of(found: dict[str, tuple[str, str, str]], at: str = STAMP) -> tuple[Condition, ...]:
    """Conditions of generation 3 by type."""
    return tuple(
        Condition.model_validate(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "observedGeneration": 3,
                "lastTransitionTime": at,
            }
        )
        for kind, (status, reason, message) in sorted(found.items())
    )


def expected_status(
    binding: Binding,
    generation: int = 1,
    *,
    conditions: dict[str, tuple[str, str, str]] | None = None,
    points: int = 100,
    phase: str = "Ready",
    previous: PreviousStatus | None = None,
    rebuild: RebuildStatus | None = None,
) -> SearchTenantStatus:
    """The status of a provisioned tenant, with what differs from a Ready one."""
    name = f"{ALIAS}@g{generation}"
    found = {**GOOD, "Provisioned": ("True", "Provisioned", f"{name} behind {ALIAS}"), **(conditions or {})}
    return SearchTenantStatus(
        observed_generation=3,
        phase=phase,
        cell="eu-1",
        alias=ALIAS,
        collection=name,
        binding=BindingStatus(
            model=binding.model,
            revision=binding.revision,
            encoder=binding.encoder,
            vector=binding.vector,
            analyser=binding.analyser_id,
            profile="default",
            since=binding.since,
        ),
        previous=previous,
        isolation=IsolationStatus(mode="Collection", enforced_by="Database"),
        usage=UsageStatus(points=points, estimated=True),
        rebuild=rebuild,
        access_secrets=("acme-indexer", "acme-storefront"),
        conditions=conditions_of(found),
    )


def previous_status(binding: Binding, until: datetime) -> PreviousStatus:
    """What the status says of the side that a rollback would go back to."""
    return PreviousStatus(
        revision=binding.revision, vector=binding.vector, collection=binding.side, until=format_time(until)
    )


def unready_status(
    reason: str, message: str, *, phase: str, others: dict[str, tuple[str, str, str]] | None = None
) -> SearchTenantStatus:
    """The status of a tenant that was not provisioned before, with Ready=False."""
    found = {**(others or {}), "Ready": ("False", reason, message)}
    return SearchTenantStatus(observed_generation=3, phase=phase, conditions=conditions_of(found))
