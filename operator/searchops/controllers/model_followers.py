"""The tenants that name a model, as its plan counts them; each is parsed once for every change of it.

A model's pass looks at all of them, and each tenant's change asks for a pass: without this, thousands of objects would
be parsed again for every one that changed, and nothing else would get its turn meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from searchops.planning import model_facts as act
from searchops.planning.conditions import find
from searchops.planning.names import CELL_ANNOTATION, is_revision_of
from searchops.planning.pinned_trial import HELD_BACK

if TYPE_CHECKING:
    from searchops.api.meta import Condition
    from searchops.api.v1alpha1 import SearchTenant
    from searchops.planning.model_facts import TenantFact
    from searchops.runtime.cache import CachedObject, ObjectCache
    from searchops.runtime.key import Key

BOUND_INDEX = "bound"
UNREAD_INDEX = "unread"


class Bound(NamedTuple):
    """A revision that a tenant's binding names, and the model that the tenant follows: none while it is deleted."""

    model: str | None
    revision: str


class Followers:
    """What is known of each tenant, kept for as long as the cache holds the very object that it was read from.

    Args:
        tenants: the watch's cache, with an index ``model``; two more are added to it.
    """

    def __init__(self, tenants: ObjectCache[SearchTenant]) -> None:
        self._tenants = tenants
        tenants.add_index(BOUND_INDEX, _bound_by)
        tenants.add_index(UNREAD_INDEX, _unread_of)
        self._read: dict[str, dict[Key, tuple[CachedObject, TenantFact | None]]] = {}

    def of(self, model: str) -> tuple[TenantFact, ...]:
        """The tenants that name the model, but for those that are being deleted."""
        before = self._read.get(model, {})
        now: dict[Key, tuple[CachedObject, TenantFact | None]] = {}
        for cached in self._tenants.by_index("model", model):
            known = before.get(cached.key)
            now[cached.key] = known if known is not None and known[0] is cached else (cached, self._fact(cached))
        self._read[model] = now
        return tuple(fact for _, fact in now.values() if fact is not None)

    def bound_elsewhere(self, model: str) -> tuple[str, ...]:
        """Revisions of this model that tenants are bound to though they name another model, or are being deleted."""
        pairs = (value for value in self._tenants.index_values(BOUND_INDEX) if isinstance(value, Bound))
        return tuple(
            sorted({pair.revision for pair in pairs if pair.model != model and is_revision_of(model, pair.revision)})
        )

    def unread(self, model: str) -> int:
        """How many tenants of the model have a cell, so may be bound, and no status that says to what."""
        return self._tenants.count(UNREAD_INDEX, model)

    def _fact(self, cached: CachedObject) -> TenantFact | None:
        """One that does not parse counts as held: it cannot follow, and keeps its side."""
        bound, previous = bindings(cached)
        try:
            tenant = self._tenants.typed(cached.key)
        except ValidationError:
            return act.TenantFact(cached.key.namespace, cached.key.name, cached.labels, bound, previous, held=True)
        if tenant is None or tenant.metadata.deletion_timestamp is not None:
            return None
        status = tenant.status
        condition = find(status.conditions, "ModelBound")
        return act.TenantFact(
            namespace=tenant.metadata.namespace,
            name=tenant.metadata.name,
            labels=tenant.metadata.labels,
            bound=bound,
            previous=previous,
            rebuilding=status.rebuild is not None,
            failed=condition is not None and condition.reason == "RebuildFailed",
            held=tenant.spec.paused or tenant.spec.model.revision is not None or _held_back(condition),
            previous_lacking=status.previous.lacking if status.previous is not None else None,
            documents=status.usage.points if status.usage is not None else 0,
            replicas=tenant.spec.sharding.replicas,
            since=status.binding.since if status.binding is not None else None,
        )


def _held_back(condition: Condition | None) -> bool:
    """Whether its own pinned queries keep the tenant where it is: it stands in nobody's way."""
    return condition is not None and condition.status != "True" and condition.reason in HELD_BACK


def bindings(cached: CachedObject) -> tuple[str | None, str | None]:
    """The revisions that a tenant's binding and its previous one name, read from an object that may not parse."""
    binding, previous = (cached.status.get(name) or {} for name in ("binding", "previous"))
    return binding.get("revision"), previous.get("revision")


def _bound_by(cached: CachedObject) -> tuple[Bound, ...]:
    model = None if cached.deleting else _named_by(cached)
    return tuple(Bound(model, revision) for revision in bindings(cached) if revision)


def _unread_of(cached: CachedObject) -> tuple[str, ...]:
    model = _named_by(cached)
    unread = CELL_ANNOTATION in cached.annotations and not cached.status.get("binding")
    return (model,) if model is not None and unread else ()


def _named_by(cached: CachedObject) -> str | None:
    name = ((cached.raw.get("spec") or {}).get("model") or {}).get("name")
    return name if isinstance(name, str) else None
