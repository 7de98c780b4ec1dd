"""Which Triton models each server of a pool should hold, compared server by server.

Loading is per process in Triton, so a new or restarted replica converges here by itself, and a Service is never asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchops.planning.model_facts import LoadModel, UnloadModel
from searchops.planning.names import is_revision_of, model_parts

if TYPE_CHECKING:
    from searchops.planning.model_facts import PoolFacts


@dataclass(frozen=True, slots=True)
class PoolSync:
    """What a pool lacks, and what to do about it.

    Attributes:
        missing: for each revision the servers (with the reason) that do not serve it yet.
    """

    loads: tuple[LoadModel, ...]
    unloads: tuple[UnloadModel, ...]
    missing: dict[str, tuple[str, ...]]
    total: int
    in_sync: int

    def serves(self, revision: str) -> bool:
        """Whether every server of a non-empty pool serves the revision, proved by inference."""
        return self.total > 0 and not self.missing.get(revision)


def sync_pool(model: str, pool: PoolFacts, wanted: tuple[str, ...]) -> PoolSync:
    """Compare each server with the wanted revisions of one EmbeddingModel; other models' entries are not ours to touch.

    A server that says READY but fails a real inference (a crashed stub) is repaired by unload and load.
    """
    loads: list[LoadModel] = []
    unloads: list[UnloadModel] = []
    missing: dict[str, list[str]] = {revision: [] for revision in wanted}
    in_sync = 0
    keep = {part for revision in wanted for part in model_parts(revision)}
    for server in pool.servers:
        if not server.reachable:
            for revision in wanted:
                missing[revision].append(f"{server.url} does not answer ({server.error})")
            continue
        extra = [name for name in server.models if is_revision_of(model, name) and name not in keep]
        extra = [name for name in extra if server.models[name] not in ("UNAVAILABLE", "UNLOADING", "")]
        unloads += [UnloadModel(server, name) for name in sorted(extra, key=_unload_rank)]
        complete = not extra
        for revision in wanted:
            absent = [part for part in model_parts(revision) if not server.ready(part)]
            broken = pool.inference.get((server.url, revision), "")
            if absent:
                loads += [LoadModel(server, part) for part in absent if server.models.get(part) != "LOADING"]
                reason = server.reasons.get(absent[0], "") or f"state {server.models.get(absent[0], 'not loaded')}"
                missing[revision].append(f"{server.url} does not serve {absent[0]} ({reason})")
            elif broken:
                parts = model_parts(revision)
                unloads += [UnloadModel(server, part) for part in reversed(parts)]
                loads += [LoadModel(server, part) for part in parts]
                missing[revision].append(f"{server.url} says {revision} is ready, but {broken}")
            complete = complete and not absent and not broken
        in_sync += complete
    return PoolSync(
        tuple(loads),
        tuple(unloads),
        {revision: tuple(servers) for revision, servers in missing.items()},
        len(pool.servers),
        in_sync,
    )


def _unload_rank(name: str) -> tuple[str, int]:
    base = name.removesuffix("-enc").removesuffix("-tok")
    return base, 2 if name.endswith("-enc") else 1 if name.endswith("-tok") else 0
