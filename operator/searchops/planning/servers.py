"""Which Triton models each server of a pool should hold, compared server by server.

Loading is per process in Triton, so a new or restarted replica converges here by itself, and a Service is never asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from searchops.planning.model_facts import LoadModel, UnloadModel
from searchops.planning.names import is_revision_of, model_parts
from searchops.planning.rollout_choice import gate_passed
from searchops.planning.server_troubles import cause, patience_of, steady

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from searchops.api.observed import ServerState
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus, ServerTrouble
    from searchops.planning.model_facts import ModelFacts, PoolFacts
    from searchops.planning.server_troubles import Patience, TroubleReason

GONE = ("UNAVAILABLE", "UNLOADING", "")


@dataclass(frozen=True, slots=True)
class PoolSync:
    """What a pool lacks, and what to do about it.

    Attributes:
        missing: for each revision the servers (with the reason) that do not serve it yet.
        broken: revisions that some server says are ready though a real inference fails.
        unproved: for each revision the servers that say READY and that no inference has proved.
        troubles: each server that does not serve a revision, with what was tried.
        refused: unloads that a server refused, in words.
    """

    loads: tuple[LoadModel, ...]
    unloads: tuple[UnloadModel, ...]
    missing: Mapping[str, tuple[str, ...]]
    total: int
    in_sync: int
    broken: frozenset[str] = frozenset()
    unproved: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    troubles: tuple[ServerTrouble, ...] = ()
    refused: tuple[str, ...] = ()

    def serves(self, revision: str) -> bool:
        """Whether every server of a non-empty pool serves the revision, proved by inference."""
        return self.total > 0 and not self.waits_for(revision)

    def waits_for(self, revision: str) -> tuple[str, ...]:
        """Why the revision is not served everywhere: servers with their reasons."""
        return (*self.missing.get(revision, ()), *self.unproved.get(revision, ()))


@dataclass(slots=True)
class _Comparison:
    """What is found while the servers of one pool are gone through."""

    pool: PoolFacts
    patience: Patience
    missing: dict[str, list[str]]
    unproved: dict[str, list[str]]
    loads: list[LoadModel] = field(default_factory=list)
    unloads: list[UnloadModel] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    reloaded: set[str] = field(default_factory=set)
    troubles: list[ServerTrouble] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def lacks(
        self, server: ServerState, revision: str, reason: TroubleReason, message: str, *, tried: bool = False
    ) -> None:
        """Note that a server does not serve a revision."""
        self.missing[revision].append(message)
        self.troubles.append(self.patience.trouble(server.url, revision, reason, message, tried=tried))


def sync_pool(
    model: str, pool: PoolFacts, wanted: tuple[str, ...], patience: Patience, *, drop_extras: bool = True
) -> PoolSync:
    """Compare each server with the wanted revisions of one EmbeddingModel; other models' entries are not ours to touch.

    A server that says READY but fails a real inference (a crashed stub) is repaired by unload and load, one server of
    a pool at a time: a pool that is only overloaded must not lose all its servers at once. What fails is tried again
    with back-off, server by server, so that one that refuses holds back no other.

    Args:
        model: the EmbeddingModel's name.
        pool: the pool and its servers.
        wanted: the revisions that each server should hold.
        patience: what was tried before.
        drop_extras: whether what is not wanted is unloaded; not while it is unknown what tenants are bound to.
    """
    seen = _Comparison(pool, patience, {name: [] for name in wanted}, {name: [] for name in wanted})
    keep = {part for revision in wanted for part in model_parts(revision)}
    in_sync = 0
    for server in pool.servers:
        if not server.reachable:
            for revision in wanted:
                seen.lacks(server, revision, "NoAnswer", f"{server.url} does not answer ({cause(server.error)})")
            continue
        extra = loaded_revisions(model, server, keep) if drop_extras else []
        seen.unloads += [UnloadModel(server, name) for name in extra]
        seen.refused += [steady(text) for name in extra if (text := pool.refusals.get((server.url, name)))]
        good = [_compare(seen, server, revision) for revision in wanted]
        in_sync += all(good) and not extra
    return PoolSync(
        tuple(seen.loads),
        tuple(seen.unloads),
        {revision: tuple(servers) for revision, servers in seen.missing.items()},
        len(pool.servers),
        in_sync,
        frozenset(seen.broken),
        {revision: tuple(servers) for revision, servers in seen.unproved.items()},
        tuple(seen.troubles),
        tuple(seen.refused),
    )


def loaded_revisions(model: str, server: ServerState, keep: set[str]) -> list[str]:
    """Parts of this EmbeddingModel that a server holds beyond those to keep, in the order of unloading."""
    names = [name for name in server.models if is_revision_of(model, name) and name not in keep]
    return sorted((name for name in names if server.models[name] not in GONE), key=_unload_rank)


def _compare(seen: _Comparison, server: ServerState, revision: str) -> bool:
    """Whether one server serves one revision; what to do about it is noted."""
    parts = model_parts(revision)
    absent = [part for part in parts if not server.ready(part)]
    if absent:
        _load(seen, server, revision, absent)
        return False
    outcome = seen.pool.inference.get((server.url, revision))
    if outcome is None:
        seen.unproved[revision].append(f"{server.url} has {revision}, but its reference vectors cannot be read")
        return True
    if outcome:
        _reload(seen, server, revision, outcome)
        return False
    return True


def _load(seen: _Comparison, server: ServerState, revision: str, absent: list[str]) -> None:
    """Load what is absent and not on its way, where it is due.

    The text model calls the two others while it warms up, so it waits for those: its failure would hide their trouble.
    """
    loading = [part for part in absent if server.models.get(part) == "LOADING"]
    idle = [part for part in absent if part not in loading and not (loading and part == revision)]
    tried = bool(idle) and seen.patience.due(server.url, revision, "NotLoaded")
    if tried:
        seen.loads += [LoadModel(server, part) for part in idle]
    if not idle:
        seen.lacks(server, revision, "Loading", f"{server.url} does not serve {loading[0]} (state LOADING)")
        return
    said = [server.reasons.get(part, "") or seen.pool.refusals.get((server.url, part), "") for part in idle]
    part, reason = next(((part, text) for part, text in zip(idle, said, strict=True) if text), (idle[0], ""))
    reason = steady(reason) or f"state {server.models.get(part) or 'not loaded'}"
    seen.lacks(server, revision, "NotLoaded", f"{server.url} does not serve {part} ({reason})", tried=tried)


def _reload(seen: _Comparison, server: ServerState, revision: str, outcome: str) -> None:
    """Unload and load a revision whose inference fails, where it is due and no other server is being repaired."""
    patience, parts = seen.patience, model_parts(revision)
    tried = (
        revision not in seen.reloaded
        and patience.due(server.url, revision, "WrongVectors")
        and not patience.exhausted(server.url, revision)
    )
    if tried:
        seen.reloaded.add(revision)
        seen.unloads += [UnloadModel(server, part) for part in reversed(parts)]
        seen.loads += [LoadModel(server, part) for part in parts]
    seen.broken.add(revision)
    message = f"{server.url} says {revision} is ready, but {steady(outcome)}"
    seen.lacks(server, revision, "WrongVectors", message, tried=tried)


def _unload_rank(name: str) -> tuple[str, int]:
    base = name.removesuffix("-enc").removesuffix("-tok")
    return base, 2 if name.endswith("-enc") else 1 if name.endswith("-tok") else 0


def sync_pools(
    model: EmbeddingModel, facts: ModelFacts, status: EmbeddingModelStatus, now: datetime, *, acting: bool = True
) -> tuple[PoolSync | None, PoolSync | None]:
    """The serving and the canary pool of a model, compared with what each should hold; None where not registered.

    Args:
        model: the object.
        facts: what was read.
        status: whose revisions are wanted, and what was tried before.
        now: the time of the pass.
        acting: whether the pass carries out the loads that are planned here.
    """
    patience, drop = patience_of(model.status, now, acting=acting), facts.unread_tenants == 0

    def synced(pool: PoolFacts | None, wanted: tuple[str, ...]) -> PoolSync | None:
        return sync_pool(model.metadata.name, pool, wanted, patience, drop_extras=drop) if pool is not None else None

    on_serving = synced(facts.serving, wanted_on_serving(model, status, facts))
    return on_serving, synced(facts.canary, wanted_on_canary(model, status, facts))


def distinct(facts: ModelFacts, serving: PoolSync | None, canary: PoolSync | None) -> tuple[PoolSync, ...]:
    """The pools' syncs, once where canary and serving are the same pool."""
    if one_pool(facts):
        return (canary,) if canary is not None else ()
    return tuple(sync for sync in (serving, canary) if sync is not None)


def wanted_on_serving(model: EmbeddingModel, status: EmbeddingModelStatus, facts: ModelFacts) -> tuple[str, ...]:
    """Active, what bindings name, what a rollback may need, and a candidate that the gate let through."""
    wanted = _base_wanted(model, status, facts)
    candidate = status.candidate
    let_through = gate_passed(status) and model.spec.gate.mode == "Enforce"
    if candidate is not None and (let_through or one_pool(facts)) and candidate.engine_key:
        wanted.append(candidate.revision)
    return tuple(dict.fromkeys(wanted))


def wanted_on_canary(model: EmbeddingModel, status: EmbeddingModelStatus, facts: ModelFacts) -> tuple[str, ...]:
    """Incumbent and candidate: both are evaluated there."""
    wanted = _base_wanted(model, status, facts) if one_pool(facts) else []
    if status.active is not None:
        wanted.append(status.active.revision)
    if status.candidate is not None and status.candidate.engine_key:
        wanted.append(status.candidate.revision)
    return tuple(dict.fromkeys(wanted))


def one_pool(facts: ModelFacts) -> bool:
    """Whether the serving pool is its own canary."""
    if facts.serving is None or facts.canary is None:
        return False
    return facts.serving.registration.name == facts.canary.registration.name


def _base_wanted(model: EmbeddingModel, status: EmbeddingModelStatus, facts: ModelFacts) -> list[str]:
    wanted = [status.active.revision] if status.active is not None else []
    wanted += [revision.revision for revision in status.retiring]
    named = [revision for tenant in facts.tenants for revision in (tenant.bound, tenant.previous)]
    named += facts.bound_elsewhere
    name = model.metadata.name
    return wanted + [revision for revision in named if revision is not None and is_revision_of(name, revision)]
