"""Everything that a pass over one SearchTenant reads."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from searchops.api.observed import AccessSecretState, CellIdentity, CellState, CollectionState, SearchProbe, Trial
from searchops.api.retrieval import MISSED_KEY, lexical_vector, missed_mark
from searchops.api.v1alpha1.search_tenant import AccessEntry
from searchops.controllers.reindex_rates import ReindexRates
from searchops.controllers.sightings import Sightings
from searchops.controllers.tenant_index import Generations, Grants
from searchops.planning import tenant as planner
from searchops.planning import tenant_facts as act
from searchops.planning.binding_state import count_key, read_bindings
from searchops.planning.names import (
    ACCESS_SECRET_TYPE,
    KEY_FORMER_UID,
    alias_name,
    generation_of,
    is_gateway_key,
    side_alias,
    tokens_collection,
)
from searchops.planning.tenant_access import token_claims
from searchops.planning.tenant_adoption import adoption_of
from searchops.planning.tenant_deletion import abandoned
from searchops.runtime.key import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from searchops.api.observed import CellRegistration, RegisterState, TokenGrant
    from searchops.api.v1alpha1 import EmbeddingModel, ReindexJob, SearchTenant
    from searchops.controllers.pass_reads import PassReads
    from searchops.planning.schema import Owner
    from searchops.planning.tenant_facts import TenantFacts, TenantSettings
    from searchops.ports import (
        AccessSecrets,
        CanaryFindings,
        CellDirectory,
        CellKeys,
        CellReader,
        CellRooms,
        CellWriter,
        EventRecorder,
        GatewayKeys,
        ObjectReader,
        ReindexJobs,
        TokenRegister,
        TokenSigner,
        TokenTrials,
    )
    from searchops.runtime.cache import CachedObject, ObjectCache

ENTRY_FOR_PROBE = "probe"
PROBE_TOKEN_LIFETIME = timedelta(minutes=30)
"""The cell judges it by a clock of its own, which may be ten minutes ahead of ours."""


@dataclass(frozen=True, slots=True)
class TenantPorts:
    """Everything the controller talks to."""

    cells: CellReader
    ddl: CellWriter
    directory: CellDirectory
    objects: ObjectReader
    secrets: AccessSecrets
    register: TokenRegister
    keys: CellKeys
    canary: CanaryFindings
    gateway_keys: GatewayKeys
    trials: TokenTrials
    rooms: CellRooms
    signer: TokenSigner
    reindex_jobs: ReindexJobs
    events: EventRecorder


class TenantGatherer:
    """Reads what a tenant's plan is made from, through ports and caches."""

    def __init__(
        self,
        ports: TenantPorts,
        settings: TenantSettings,
        *,
        tenants: ObjectCache[SearchTenant],
        models: ObjectCache[EmbeddingModel],
        reindexes: ObjectCache[ReindexJob],
        clock: Callable[[], datetime],
        templates: Callable[[str], Mapping[str, Any] | None],
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._tenants = tenants
        self._models = models
        self._reindexes = reindexes
        self._rates = ReindexRates(reindexes, clock)
        self._templates = templates
        self._clock = clock
        self._parsed: dict[str, tuple[CachedObject | None, EmbeddingModel | None]] = {}
        self._sightings = Sightings(monotonic or (lambda: clock().timestamp()))
        self._grants = Grants()
        self._generations = Generations()
        self._namespace_uids: dict[str, tuple[str, int]] = {}
        self._cluster_uid = ""

    async def gather(self, tenant: SearchTenant, reads: PassReads) -> TenantFacts:
        """Every read of a round; what the rounds before it of the same pass have read or made is in `reads`."""
        identity = CellIdentity(self._settings.fleet, "", await self._cluster())
        namespace_uid = await self._namespace_uid(tenant)
        directory = self._ports.directory.cells()
        claimed = planner.cell_of(tenant)
        model = self._model(tenant.spec.model.name)
        facts = act.TenantFacts(identity=identity, namespace_uid=namespace_uid, model=model)
        if tenant.metadata.deletion_timestamp is None:
            facts = replace(facts, holds=await self._ports.rooms.holds())
        if claimed is None:
            states = await self._every(directory)
            own = Key(tenant.metadata.namespace, tenant.metadata.name)
            held = await self._held(tenant, states, reads)
            return replace(facts, cells=states, held=held, grants=self._grants.counted(own, states))
        if abandoned(tenant):
            return replace(facts, secrets=await self._secrets(tenant, None, reads))
        registration = directory.get(claimed)
        if registration is None and tenant.metadata.deletion_timestamp is not None:
            return replace(facts, secrets=await self._secrets(tenant, None, reads))
        if registration is None:
            return facts
        state = await self._ports.cells.survey(registration)
        facts = replace(facts, cell=state, cells=(state,))
        if not state.reachable and tenant.metadata.deletion_timestamp is None:
            return facts  # nothing is decided while it is silent, so nothing more is asked of the API server
        own = Key(tenant.metadata.namespace, tenant.metadata.name)
        register = await self._register(tenant, registration, state)
        secrets = await self._secrets(tenant, register, reads)
        own_secrets = (item for item in secrets.values() if _is_ours(tenant, item))
        self._ports.keys.saw(own, claimed, [item.key_id for item in own_secrets if not is_gateway_key(item.key_id)])
        facts = replace(
            facts,
            secrets=secrets,
            reindex=self._reindex(tenant),
            register=register,
            signing=self._ports.keys.signing(registration),
            canary=self._ports.canary.result(own),
            rates=self._rates.of(tenant.spec.model.name),
            worker_labels=self._worker_labels(model),
        )
        if not state.reachable:
            return facts
        owner = planner.owner_of(tenant, facts, self._settings)
        collections = await self._collections(registration, state, owner.alias, adoption_of(tenant), reads)
        register = await self._with_former(registration, register, owner, collections)
        facts = replace(facts, collections=collections, register=register)
        if tenant.spec.isolation != "Collection" or any(item.slice is not None for item in collections):
            facts = replace(facts, gateway_key=self._ports.gateway_keys.key())
        current = next((item for item in collections if item.name == state.aliases.get(owner.alias)), None)
        if current is None or not owner.owns(current) or tenant.metadata.deletion_timestamp is not None:
            return facts
        lacking = await self._lacking(registration, state, owner, current, collections)
        probe = await self._probe(tenant, registration, owner, current, secrets, reads)
        return replace(facts, lacking=lacking, probe=probe, seen_for=self._sightings.of(own, current))

    def grant(self, key: Key, cell: str) -> None:
        """Count a placement until a read of the cell shows it."""
        self._grants.add(key, alias_name(self._settings.fleet, key.namespace, key.name), cell)

    def forget(self, key: Key) -> None:
        """The tenant is gone."""
        self._grants.forget(key)
        self._sightings.forget(key)
        self._ports.keys.forget(key)

    async def _every(self, directory: Mapping[str, CellRegistration]) -> tuple[CellState, ...]:
        """All cells at once: one that hangs costs its own time, not the sum."""
        reads = [self._ports.cells.survey(cell) for _, cell in sorted(directory.items())]
        states = await asyncio.gather(*reads, return_exceptions=True)
        for state in states:
            if isinstance(state, BaseException):
                raise state
        return tuple(_whole(state) for state in states if not isinstance(state, BaseException))

    async def _cluster(self) -> str:
        if not self._cluster_uid:
            self._cluster_uid = await self._ports.objects.cluster_uid()
        return self._cluster_uid

    async def _namespace_uid(self, tenant: SearchTenant) -> str:
        """Read once after a tenant has arrived: no object outlives its namespace, whatever two clocks say.

        One read thus serves every tenant that the watch had shown before it.
        """
        name = tenant.metadata.namespace
        found = self._namespace_uids.get(name)
        if found is not None and self._tenants.arrival(Key(name, tenant.metadata.name)) <= found[1]:
            return found[0]
        arrived = self._tenants.arrivals
        answer = await self._ports.objects.namespace_uid(name)
        self._namespace_uids[name] = answer, arrived
        return answer

    def _model(self, name: str) -> EmbeddingModel | None:
        """Parsed once for each of its versions: every tenant that follows it asks, at every look."""
        cached = self._models.get(Key("", name))
        known = self._parsed.get(name)
        if cached is None or known is None or known[0] is not cached:
            try:
                found = self._models.typed(Key("", name))
            except ValidationError:
                found = None
            known = self._parsed[name] = cached, found
        return known[1]

    def _worker_labels(self, model: EmbeddingModel | None) -> Mapping[str, str] | None:
        template = self._templates(model.spec.engine.worker.pod_template) if model is not None else None
        return None if template is None else template.get("metadata", {}).get("labels") or {}

    def _reindex(self, tenant: SearchTenant) -> ReindexJob | None:
        if tenant.status.rebuild is None:
            return None
        try:
            return self._reindexes.typed(Key(tenant.metadata.namespace, tenant.status.rebuild.reindex_job))
        except ValidationError:
            return None

    async def _held(
        self, tenant: SearchTenant, states: tuple[CellState, ...], reads: PassReads
    ) -> dict[str, tuple[CollectionState, ...]]:
        """What stands under the tenant's name in any cell: looked at before it is placed."""
        alias = alias_name(self._settings.fleet, tenant.metadata.namespace, tenant.metadata.name)
        found = {}
        for state in states:
            if state.reachable:
                items = await self._collections(state.registration, state, alias, adoption_of(tenant), reads)
                if items:
                    found[state.name] = items
        return found

    async def _collections(
        self, cell: CellRegistration, state: CellState, alias: str, adopts: str | None, reads: PassReads
    ) -> tuple[CollectionState, ...]:
        """Every generation, what the tenant's names point to, and what it would adopt or has adopted."""
        names = list(self._generations.of(state, alias))
        targets = [state.aliases.get(name) for name in (alias, side_alias(alias, 0), side_alias(alias, 1))]
        targets.append(adopts if adopts in state.collections else None)
        for target in targets:
            if target is not None and target not in names:
                names.append(target)
        found = [await reads.collection(cell, name) for name in names]
        return tuple(item for item in found if item is not None)

    async def _lacking(
        self,
        cell: CellRegistration,
        state: CellState,
        owner: Owner,
        current: CollectionState,
        collections: tuple[CollectionState, ...],
    ) -> dict[tuple[str, str], int]:
        """Exact counts of live points that a side lacks; a side that is not there has no entry: unknown."""
        bindings = read_bindings(current)
        counts: dict[tuple[str, str], int] = {}
        if bindings is None:
            return counts
        own_side = side_alias(owner.alias, generation_of(owner.alias, current.name) or 1)
        for item in (bindings.previous, bindings.pending):
            if item is None:
                continue
            name = current.name if item.side in (None, own_side) else state.aliases.get(item.side or "")
            side = next((one for one in collections if one.name == name), None)
            if side is None or not owner.owns(side) or (item.vector is not None and item.vector not in side.dense):
                continue
            if item is bindings.previous and side.name != current.name and MISSED_KEY not in current.indexes:
                continue
            missing = 0
            if item.vector is not None:
                missing = await self._ports.cells.count(cell, side.name, lacking=item.vector)
            if side.name != current.name:
                live = await self._ports.cells.count(cell, current.name)
                fewer = live - await self._ports.cells.count(cell, side.name)
                marked = 0
                if item is bindings.previous:
                    marked = await self._ports.cells.count(cell, current.name, missed=missed_mark(item))
                missing += max(0, fewer, marked)
            counts[count_key(item, own_side)] = missing
        return counts

    async def _register(self, tenant: SearchTenant, cell: CellRegistration, state: CellState) -> RegisterState | None:
        """The tenant's entries; also those that its status has lost, since the register names their Secrets."""
        if not self._settings.revocable or not state.reachable:
            return None
        name = tokens_collection(self._settings.fleet)
        exists = name in state.collections
        return await self._ports.register.read(cell, name, tenant.metadata.uid, exists=exists)

    async def _with_former(
        self,
        cell: CellRegistration,
        register: RegisterState | None,
        owner: Owner,
        collections: tuple[CollectionState, ...],
    ) -> RegisterState | None:
        """Also what the objects had entered whose data this one has taken back."""
        if register is None or not register.exists:
            return register
        uids = {item.metadata.get(KEY_FORMER_UID) for item in collections if owner.owns(item)}
        former: list[TokenGrant] = []
        for uid in sorted(item for item in uids if item and item != owner.uid):
            found = await self._ports.register.read(cell, tokens_collection(owner.fleet), uid, exists=True)
            former += found.grants
        return replace(register, former=tuple(former))

    async def _secrets(
        self, tenant: SearchTenant, register: RegisterState | None, reads: PassReads
    ) -> dict[str, AccessSecretState]:
        names = {entry.secret_name for entry in tenant.spec.access} | set(tenant.status.access_secrets)
        names |= {grant.secret for grant in register.grants} if register is not None else set()
        found = {}
        for name in sorted(names):
            secret = await reads.secret(tenant.metadata.namespace, name)
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
        reads: PassReads,
    ) -> SearchProbe | None:
        """A query with the tenant's own token; a tenant without a Search entry is asked with one signed for this."""
        bindings = read_bindings(current)
        if bindings is None:
            return None
        vector = lexical_vector(bindings.binding.analyser_id)
        own = [entry for entry in tenant.spec.access if entry.role == "Search"]
        held = next((secrets[entry.secret_name] for entry in own if entry.secret_name in secrets), None)
        if current.slice is not None:
            others = (secrets[entry.secret_name] for entry in tenant.spec.access if entry.secret_name in secrets)
            return await self._probe_gateway(owner, held or next(others, None))
        token = held.token if held is not None else ""
        if own and not token:
            return None
        if held is None:
            entry = AccessEntry(name=ENTRY_FOR_PROBE, role="Search", secret_name=ENTRY_FOR_PROBE)
            claims = token_claims(entry, owner, cell.name, issued=self._clock(), lifetime=PROBE_TOKEN_LIFETIME)
            token = self._ports.signer.sign(cell, claims)
        probe = await reads.probe(cell, owner.alias, vector, token)
        if probe.ok or held is None:
            return probe
        return replace(probe, error=f"{probe.error}; asked with the token of Secret {owner.namespace}/{held.name}")

    async def _probe_gateway(self, owner: Owner, held: AccessSecretState | None) -> SearchProbe | None:
        """The same at the gateway, which alone opens a shared collection, with a token that its register holds.

        One signed for this alone would be in no register. Who has no entry cannot search, and is not asked for.
        """
        if held is None or not held.token:
            return None
        url, tenant = self._settings.gateway_url, f"{owner.namespace}.{owner.name}"
        trial = await self._ports.trials.at_gateway(url, tenant, held.token)
        if trial is Trial.OPENED:
            return SearchProbe(True)
        seen = "refuses it" if trial is Trial.REFUSED else "gave no answer that proves it"
        said = f"the gateway at {url} {seen}; asked with the token of Secret {held.name}"
        return SearchProbe(False, said, silent=trial is Trial.UNKNOWN)


def _whole(state: CellState) -> CellState:
    """A cell for placement: where one of its shared collections is unread, the tenant may be there already."""
    if not state.unread:
        return state
    return replace(state, reachable=False, error=f"{', '.join(sorted(state.unread))} cannot be read")


def _is_ours(tenant: SearchTenant, secret: AccessSecretState) -> bool:
    return (secret.type, secret.owner_uid) == (ACCESS_SECRET_TYPE, tenant.metadata.uid)
