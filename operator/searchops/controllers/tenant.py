"""SearchTenant: gather, plan, apply. All reading and writing of a tenant's collection happens here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from searchops.api.meta import API_VERSION, format_time
from searchops.api.observed import AccessSecretState, CellIdentity, CellState, CollectionState, SearchProbe
from searchops.api.retrieval import lexical_vector
from searchops.api.v1alpha1.search_tenant import AccessEntry, TenantReason
from searchops.controllers.terminal import terminal_status
from searchops.planning import tenant as planner
from searchops.planning import tenant_facts as act
from searchops.planning.names import CELL_ANNOTATION, OWNER_UID_LABEL, generation_of, side_alias
from searchops.planning.tenant_access import renew_at, token_claims
from searchops.planning.tenant_binding import read_bindings
from searchops.runtime.errors import NotReady, Terminal, Transient
from searchops.runtime.key import Key
from searchops.runtime.result import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from searchops.api.observed import CellRegistration
    from searchops.api.v1alpha1 import EmbeddingModel, ReindexJob, SearchTenant
    from searchops.planning.schema import Owner
    from searchops.planning.tenant_facts import TenantAction, TenantFacts, TenantSettings
    from searchops.ports import (
        AccessSecrets,
        CellDirectory,
        CellReader,
        CellWriter,
        EventRecorder,
        ObjectReader,
        ReindexJobs,
        TokenSigner,
    )
    from searchops.runtime.cache import CachedObject, ObjectCache
    from searchops.runtime.dependency import Dependencies
    from searchops.runtime.finalizer import Finalizer
    from searchops.runtime.status import StatusWriter

DDL_SECONDS = 15.0
"""What one DDL call may take: irreversible ones start only with more of the lease left."""
WARNINGS = frozenset({"IsolationBroken"})
ENTRY_FOR_PROBE = "probe"
NOT_DDL = (
    act.AddFinalizer,
    act.RemoveFinalizer,
    act.EmitEvent,
    act.WriteAccessSecret,
    act.DeleteAccessSecret,
    act.CreateReindexJob,
    act.DeleteReindexJob,
)


@dataclass(frozen=True, slots=True)
class TenantPorts:
    """Everything the controller talks to."""

    cells: CellReader
    ddl: CellWriter
    directory: CellDirectory
    objects: ObjectReader
    secrets: AccessSecrets
    signer: TokenSigner
    reindex_jobs: ReindexJobs
    events: EventRecorder


class TenantController:
    """One pass over one tenant.

    Args:
        lease_left: seconds for which this process is certainly the only one that acts.
    """

    def __init__(
        self,
        ports: TenantPorts,
        settings: TenantSettings,
        *,
        tenants: ObjectCache[SearchTenant],
        models: ObjectCache[EmbeddingModel],
        reindexes: ObjectCache[ReindexJob],
        status: StatusWriter,
        finalizer: Finalizer,
        dependencies: Dependencies,
        clock: Callable[[], datetime],
        lease_left: Callable[[], float],
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._tenants = tenants
        self._models = models
        self._reindexes = reindexes
        self._status = status
        self._finalizer = finalizer
        self._dependencies = dependencies
        self._clock = clock
        self._lease_left = lease_left
        self._grants: dict[Key, str] = {}
        self._namespace_uids: dict[str, str] = {}
        self._cluster_uid = ""

    async def reconcile(self, key: Key) -> Result:
        """Gather, plan, apply, one status write."""
        cached = self._tenants.get(key)
        if cached is None:
            self._grants.pop(key, None)
            return Result.done()
        try:
            tenant = self._tenants.typed(key)
        except ValidationError as error:
            raise Terminal("InvalidSpec", f"the object does not parse: {_first(error)}") from error
        assert tenant is not None  # noqa: S101 - it was cached a line ago, and nothing awaited since
        try:
            facts = await self._gather(tenant)
            plan = planner.plan_tenant(tenant, facts, self._settings, self._clock())
            await self._apply(cached, tenant, facts, plan.actions)
        except (NotReady, Transient) as error:
            await self._say(cached, tenant, error)
            raise
        if plan.status is not None:
            await self._status.write_if_changed(cached, plan.status.to_wire())
        return Result.done() if plan.requeue_after is None else Result.after(plan.requeue_after)

    async def on_terminal(self, key: Key, error: Terminal) -> None:
        """A terminal error as the Ready condition and an event."""
        cached = self._tenants.get(key)
        if cached is None:
            return
        status = terminal_status(cached, error, self._clock())
        await self._status.write_if_changed(cached, status)
        self._ports.events.record(_reference(cached), error.reason, error.message, warning=True)

    async def _say(self, cached: CachedObject, tenant: SearchTenant, error: NotReady | Transient) -> None:
        """A failure that may last is said in the status; a hiccup of a provisioned tenant is not flapped about."""
        reason = error.reason if isinstance(error, NotReady) else str(TenantReason.CELL_UNREACHABLE)
        ready = next((item for item in tenant.status.conditions if item.type == "Ready"), None)
        if ready is not None and ready.status == "True":
            return
        if ready is not None and ready.message.startswith(error.message[:80]):
            return
        status = planner.failed(tenant, reason, error.message, self._clock())
        await self._status.write_if_changed(cached, status.to_wire())

    # -- gather ------------------------------------------------------------------------------------------------

    async def _gather(self, tenant: SearchTenant) -> TenantFacts:
        identity = CellIdentity(self._settings.fleet, "", await self._cluster())
        namespace_uid = await self._namespace_uid(tenant.metadata.namespace)
        directory = self._ports.directory.cells()
        claimed = planner.cell_of(tenant)
        model = self._model(tenant.spec.model.name)
        facts = act.TenantFacts(identity=identity, namespace_uid=namespace_uid, model=model)
        if claimed is None:
            states = tuple([await self._ports.cells.survey(cell) for _, cell in sorted(directory.items())])
            return replace(facts, cells=states, grants=self._granted(tenant))
        registration = directory.get(claimed)
        if registration is None:
            return facts
        state = await self._ports.cells.survey(registration)
        facts = replace(facts, cell=state, cells=(state,))
        secrets = await self._secrets(tenant)
        facts = replace(facts, secrets=secrets, reindex=self._reindex(tenant))
        if not state.reachable:
            return facts
        owner = planner.owner_of(tenant, facts, self._settings)
        collections = await self._collections(registration, state, owner.alias)
        facts = replace(facts, collections=collections)
        current = next((item for item in collections if item.name == state.aliases.get(owner.alias)), None)
        if current is None or not owner.owns(current):
            return facts
        lacking = await self._lacking(registration, state, owner, current, collections)
        probe = await self._probe(tenant, registration, owner, current, secrets)
        return replace(facts, lacking=lacking, probe=probe)

    def _granted(self, tenant: SearchTenant) -> Mapping[str, int]:
        """Placements of this process that no read of a cell shows yet."""
        own = Key(tenant.metadata.namespace, tenant.metadata.name)
        return Counter(cell for key, cell in self._grants.items() if key != own)

    async def _cluster(self) -> str:
        if not self._cluster_uid:
            self._cluster_uid = await self._ports.objects.cluster_uid()
        return self._cluster_uid

    async def _namespace_uid(self, namespace: str) -> str:
        found = self._namespace_uids.get(namespace)
        if found is None:
            found = self._namespace_uids[namespace] = await self._ports.objects.namespace_uid(namespace)
        return found

    def _model(self, name: str) -> EmbeddingModel | None:
        try:
            return self._models.typed(Key("", name))
        except ValidationError:
            return None

    def _reindex(self, tenant: SearchTenant) -> ReindexJob | None:
        if tenant.status.rebuild is None:
            return None
        try:
            return self._reindexes.typed(Key(tenant.metadata.namespace, tenant.status.rebuild.reindex_job))
        except ValidationError:
            return None

    async def _collections(self, cell: CellRegistration, state: CellState, alias: str) -> tuple[CollectionState, ...]:
        names = sorted(name for name in state.collections if generation_of(alias, name) is not None)
        target = state.aliases.get(alias)
        if target is not None and target not in names:
            names.append(target)
        found = [await self._ports.cells.describe(cell, name) for name in names]
        return tuple(item for item in found if item is not None)

    async def _lacking(
        self,
        cell: CellRegistration,
        state: CellState,
        owner: Owner,
        current: CollectionState,
        collections: tuple[CollectionState, ...],
    ) -> dict[str, int]:
        """Exact counts of live points that a side lacks; a side that is not there has no entry: unknown."""
        bindings = read_bindings(current)
        counts: dict[str, int] = {}
        if bindings is None:
            return counts
        own_side = side_alias(owner.alias, generation_of(owner.alias, current.name) or 1)
        for item in (bindings.previous, bindings.pending):
            if item is None or item.vector is None:
                continue
            name = current.name if item.side in (None, own_side) else state.aliases.get(item.side or "")
            side = next((one for one in collections if one.name == name), None)
            if side is None or item.vector not in side.dense:
                continue
            missing = await self._ports.cells.count(cell, side.name, lacking=item.vector)
            if side.name != current.name:
                live = await self._ports.cells.count(cell, current.name)
                missing += max(0, live - await self._ports.cells.count(cell, side.name))
            counts[item.vector] = missing
        return counts

    async def _secrets(self, tenant: SearchTenant) -> dict[str, AccessSecretState]:
        names = {entry.secret_name for entry in tenant.spec.access} | set(tenant.status.access_secrets)
        found = {}
        for name in sorted(names):
            secret = await self._ports.secrets.read(tenant.metadata.namespace, name)
            if secret is not None:
                found[name] = secret
        return found

    async def _probe(
        self,
        tenant: SearchTenant,
        cell: CellRegistration,
        owner: Owner,
        current: CollectionState,
        secrets: Mapping[str, AccessSecretState],
    ) -> SearchProbe | None:
        """A query with the tenant's own token; a tenant without a Search entry is asked with one signed for this."""
        if tenant.metadata.deletion_timestamp is not None:
            return None
        bindings = read_bindings(current)
        if bindings is None:
            return None
        vector = lexical_vector(bindings.binding.analyser_id)
        own = [entry for entry in tenant.spec.access if entry.role == "Search"]
        token = next((secrets[entry.secret_name].token for entry in own if entry.secret_name in secrets), "")
        if own and not token:
            return None
        if not token:
            entry = AccessEntry(name=ENTRY_FOR_PROBE, role="Search", secret_name=ENTRY_FOR_PROBE)
            lifetime = self._settings.binding_settle.__class__(minutes=5)
            token = self._ports.signer.sign(
                cell, token_claims(entry, owner, cell.name, issued=self._clock(), lifetime=lifetime)
            )
        return await self._ports.cells.probe_search(cell, owner.alias, vector, token)

    # -- apply -------------------------------------------------------------------------------------------------

    async def _apply(
        self, cached: CachedObject, tenant: SearchTenant, facts: TenantFacts, actions: tuple[TenantAction, ...]
    ) -> None:
        """In order; the cell's one DDL slot is held over all of them, so that a busy cell parks the key once."""
        owner = planner.owner_of(tenant, facts, self._settings)
        if facts.cell is not None and any(not isinstance(action, NOT_DDL) for action in actions):
            async with self._dependencies.slot(f"cell/{facts.cell.name}"):
                await self._apply_each(cached, tenant, facts, owner, actions)
        else:
            await self._apply_each(cached, tenant, facts, owner, actions)

    async def _apply_each(
        self,
        cached: CachedObject,
        tenant: SearchTenant,
        facts: TenantFacts,
        owner: Owner,
        actions: tuple[TenantAction, ...],
    ) -> None:
        for action in actions:
            match action:
                case act.AddFinalizer(cell=cell):
                    self._grants[cached.key] = cell
                    await self._finalizer.add(cached, {CELL_ANNOTATION: cell})
                case act.RemoveFinalizer():
                    self._grants.pop(cached.key, None)
                    await self._finalizer.remove(cached)
                case act.EmitEvent(reason=reason, message=message, warning=warning):
                    self._ports.events.record(_reference(cached), reason, message, warning=warning)
                case act.WriteAccessSecret(entry=entry, inputs_digest=digest):
                    await self._write_secret(tenant, facts, owner, entry, digest)
                case act.DeleteAccessSecret(name=name):
                    await self._ports.secrets.delete(owner.namespace, name, owner_uid=owner.uid)
                case act.CreateReindexJob():
                    await self._ports.reindex_jobs.create(owner.namespace, _reindex_body(tenant, action))
                case act.DeleteReindexJob(name=name):
                    await self._ports.reindex_jobs.delete(owner.namespace, name)
                case _:
                    await self._ddl(facts, action)

    async def _ddl(self, facts: TenantFacts, action: TenantAction) -> None:
        """One call; a cell that stopped answering opens its breaker and holds back nobody else."""
        cell = facts.cell.registration if facts.cell is not None else None
        if cell is None:
            raise Transient("the tenant's cell is not registered any more; it is read again")
        ddl = self._ports.ddl
        match action:
            case act.ClaimCell(identity=identity):
                await ddl.claim(cell, identity)
            case act.CreateCollection(design=design):
                await ddl.create_collection(cell, design)
            case act.CreateIndex(collection=collection, field=field, kind=kind):
                await ddl.create_index(cell, collection, field, kind)
            case act.PointAlias(alias=alias, collection=collection):
                self._need_lease(f"point alias {alias}")
                await ddl.point_alias(cell, alias, collection)
            case act.RemoveAlias(alias=alias):
                self._need_lease(f"remove alias {alias}")
                await ddl.remove_alias(cell, alias)
            case act.PatchCollection(collection=collection, metadata=metadata, strict=strict):
                await ddl.patch_metadata(cell, collection, dict(metadata), strict)
            case act.AddVector(collection=collection, vector=vector, dimension=dimension):
                await ddl.add_vector(cell, collection, vector, dimension)
            case act.RemoveVector(collection=collection, vector=vector):
                self._need_lease(f"remove vector {vector}")
                await ddl.remove_vector(cell, collection, vector)
            case act.DropCollection(collection=collection):
                self._need_lease(f"drop {collection}")
                await ddl.drop_collection(cell, collection)

    def _need_lease(self, what: str) -> None:
        left = self._lease_left()
        if left <= DDL_SECONDS / 2:
            raise Transient(
                f"only {left:.0f} s of the lease are left, too few to {what}; it is tried after the renewal", 2.0
            )

    async def _write_secret(
        self, tenant: SearchTenant, facts: TenantFacts, owner: Owner, entry: AccessEntry, digest: str
    ) -> None:
        assert facts.cell is not None  # noqa: S101 - access is planned on a cell that answered
        cell, now = facts.cell.registration, self._clock()
        lifetime = self._settings.token_lifetime
        token = self._ports.signer.sign(cell, token_claims(entry, owner, cell.name, issued=now, lifetime=lifetime))
        data = {
            "gateway": self._settings.gateway_url,
            "alias": owner.alias,
            "token": token,
            "expiresAt": format_time(now + lifetime),
        }
        if entry.role == "Search":
            data["url"] = cell.urls[0]
            if cell.grpc_port is not None:
                data["grpcUrl"] = f"{cell.urls[0].rsplit(':', 1)[0].split('//')[-1]}:{cell.grpc_port}"
            if cell.ca_cert:
                data["caCert"] = cell.ca_cert
        annotations = {
            "searchops.dev/inputs-digest": digest,
            "searchops.dev/renew-at": format_time(renew_at(owner, entry, now, lifetime)),
            "searchops.dev/tenant": owner.name,
        }
        await self._ports.secrets.write(
            owner.namespace, entry.secret_name, owner={"uid": owner.uid}, data=data, annotations=annotations
        )


def _reindex_body(tenant: SearchTenant, action: act.CreateReindexJob) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "tenant": tenant.metadata.name,
        "strategy": action.strategy,
        "slices": action.slices,
        "source": {"fromCollection": True},
        "worker": {"podTemplate": action.pod_template},
    }
    if action.revision is not None:
        spec["revision"] = action.revision
    owner = {
        "apiVersion": API_VERSION,
        "kind": "SearchTenant",
        "name": tenant.metadata.name,
        "uid": tenant.metadata.uid,
        "controller": True,
    }
    metadata = {
        "name": action.name,
        "namespace": tenant.metadata.namespace,
        "labels": {OWNER_UID_LABEL: tenant.metadata.uid},
        "ownerReferences": [owner],
    }
    return {"kind": "ReindexJob", "metadata": metadata, "spec": spec}


def _reference(cached: CachedObject) -> dict[str, str]:
    return {
        "apiVersion": API_VERSION,
        "kind": "SearchTenant",
        "namespace": cached.key.namespace,
        "name": cached.key.name,
        "uid": cached.uid,
    }


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
