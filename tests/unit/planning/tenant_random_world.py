"""A cell as plans change it, drawn at random: the judge of what a plan may do to what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from searchops.api.meta import format_time
from searchops.api.observed import AccessSecretState, CellIdentity, CollectionState
from searchops.api.retrieval import Binding
from searchops.planning import names
from searchops.planning import tenant_facts as act
from searchops.planning.schema import side_of
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from searchops.api.observed import CellState
    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.planning.tenant_facts import TenantAction, TenantFacts, TenantPlan, TenantSettings

ALIAS, NOW = case.ALIAS, case.NOW
SIDES = (f"{ALIAS}@a", f"{ALIAS}@b")
GENERATIONS = tuple(f"{ALIAS}@g{number}" for number in (1, 2, 3))
OTHERS = ("prod.shop.other@g1", "theirs", "adoptable")
DDL = (
    act.CreateCollection,
    act.CreateIndex,
    act.PointAlias,
    act.RemoveAlias,
    act.PatchCollection,
    act.AddVector,
    act.RemoveVector,
    act.DropCollection,
)


@dataclass
class World:
    """Collections and aliases of one cell; `wrongs` lists what a plan did to what is not the tenant's."""

    tenant: SearchTenant
    settings: TenantSettings
    cell: CellState
    collections: dict[str, CollectionState]
    aliases: dict[str, str]
    facts: TenantFacts
    wrongs: list[str]
    secrets: dict[str, AccessSecretState] = field(default_factory=dict)

    def seen(self) -> TenantFacts:
        """What a pass would gather of it."""
        cell = replace(self.cell, collections=frozenset(self.collections), aliases=dict(self.aliases))
        wanted = [name for name in self.collections if names.generation_of(ALIAS, name) is not None]
        wanted += [self.aliases.get(name, "") for name in (ALIAS, *SIDES)]
        wanted.append(self.tenant.metadata.annotations.get(names.ADOPT_ANNOTATION, ""))
        items = tuple(self.collections[name] for name in dict.fromkeys(wanted) if name in self.collections)
        if not cell.reachable:
            items = ()
        return replace(self.facts, cell=cell, cells=(cell,), collections=items, secrets=dict(self.secrets))

    def picture(self) -> Any:
        return dict(self.collections), dict(self.aliases), dict(self.secrets)

    # -- whose is it ---------------------------------------------------------------------------------------------

    def owned(self, name: str) -> bool:
        found = self.collections.get(name)
        if found is None:
            return False
        return (found.metadata.get(names.KEY_FLEET), found.metadata.get(names.KEY_UID)) == ("prod", "uid-1")

    def may_be_handed_over(self, found: CollectionState, values: dict[str, str | None]) -> bool:
        """By what the design says, in other words than the code's."""
        metadata = found.metadata
        if values.get(names.KEY_UID) != "uid-1" or self.tenant.metadata.deletion_timestamp is not None:
            return False
        if names.KEY_FLEET not in metadata:
            asked = self.tenant.metadata.annotations.get(names.ADOPT_ANNOTATION) == found.name
            return asked and found.name in self.cell.registration.adoptable and names.KEY_UID not in metadata
        theirs = [metadata.get(key) for key in (names.KEY_FLEET, names.KEY_NAMESPACE, names.KEY_NAME)]
        same = self.settings.reclaim == "Fleet" or metadata.get(names.KEY_NAMESPACE_UID) == "ns-uid"
        return theirs == ["prod", "shop", "acme"] and same

    # -- what a plan does ----------------------------------------------------------------------------------------

    def follow(self, plan: TenantPlan) -> bool:
        """Do what it says, and keep what its status foresees of a rebuild; whether that is new."""
        self.apply(plan.actions)
        before = self.tenant.status
        if plan.status is None or plan.status.plan == before.plan:
            return False
        shown = before.model_copy(update={"plan": plan.status.plan})
        self.tenant = self.tenant.model_copy(update={"status": shown})
        return True

    def apply(self, actions: tuple[TenantAction, ...]) -> None:
        """Do it, and note what should not have been done."""
        ours = self.cell.reachable and self.cell.identity == CellIdentity("prod", "eu-1", "cluster-1")
        for action in actions:
            if isinstance(action, DDL):
                if not ours:
                    self.wrongs.append(f"{action} on a cell that is not ours")
                self._apply(action)
            elif isinstance(action, act.WriteAccessSecret | act.DeleteAccessSecret):
                self._secret(action)

    def _secret(self, action: act.WriteAccessSecret | act.DeleteAccessSecret) -> None:
        """A Secret of another type, owner or tenant is neither written over nor deleted."""
        name = action.name if isinstance(action, act.DeleteAccessSecret) else action.entry.secret_name
        found = self.secrets.get(name)
        if found is not None and (found.type, found.owner_uid) != (names.ACCESS_SECRET_TYPE, "uid-1"):
            heir = isinstance(action, act.WriteAccessSecret) and found.held_by(
                names.ACCESS_SECRET_TYPE, "uid-1", "acme"
            )
            if not heir:
                self.wrongs.append(f"{action}: {name} is not ours")
        if isinstance(action, act.DeleteAccessSecret):
            self.secrets.pop(name, None)
            return
        fresh = format_time(NOW + timedelta(days=9))
        self.secrets[name] = AccessSecretState(
            name, names.ACCESS_SECRET_TYPE, "uid-1", action.inputs_digest, fresh, "token", "acme"
        )

    def _apply(self, action: Any) -> None:
        match action:
            case act.CreateCollection(design=design):
                if design.name in self.collections:
                    return
                made = CollectionState(
                    design.name,
                    0,
                    dict(design.dense),
                    frozenset(design.sparse),
                    {},
                    design.shards,
                    design.replicas,
                    design.strict,
                    dict(design.metadata),
                )
                self.collections[design.name] = made
            case act.PointAlias(alias=alias, collection=name):
                self._must_own(name, action)
                before = self.aliases.get(alias)
                if alias not in (ALIAS, *SIDES):
                    self.wrongs.append(f"{action}: no name of this tenant's")
                if before is not None and before in self.collections:
                    self._must_own(before, action)
                self.aliases[alias] = name
            case act.RemoveAlias(alias=alias):
                if alias in self.aliases:
                    self._must_own(self.aliases.pop(alias), action)
            case act.PatchCollection(collection=name, metadata=values, strict=strict):
                self._patch(action, name, dict(values), strict)
            case act.DropCollection(collection=name):
                if name in self.collections:
                    self._drop(action, name)
            case _:
                self._shape(action)

    def _shape(self, action: Any) -> None:
        match action:
            case act.CreateIndex(collection=name, field=field, kind=kind):
                self._must_own(name, action)
                self._set(name, indexes={**self.collections[name].indexes, field: kind})
            case act.AddVector(collection=name, vector=vector, dimension=dimension):
                self._must_own(name, action, adopted=False)
                self._set(name, dense={**self.collections[name].dense, vector: dimension})
            case act.RemoveVector(collection=name, vector=vector):
                self._must_own(name, action, adopted=False)
                if vector in self._named(name):
                    self.wrongs.append(f"{action}: it is named")
                self._set(
                    name, dense={key: size for key, size in self.collections[name].dense.items() if key != vector}
                )

    def _drop(self, action: Any, name: str) -> None:
        self._must_own(name, action, adopted=False)
        if self.aliases.get(ALIAS) == name:
            self.wrongs.append(f"{action}: it is published")
        if names.KEY_DELETED_AT in self.collections[name].metadata:
            self.wrongs.append(f"{action}: a deleted tenant's data is the sweep's to drop")
        del self.collections[name]
        self.aliases = {alias: target for alias, target in self.aliases.items() if target != name}

    def _patch(self, action: Any, name: str, values: dict[str, str | None], strict: Any) -> None:
        found = self.collections.get(name)
        if found is None:
            self.wrongs.append(f"{action}: it is not there")
            return
        if not self.owned(name) and not self.may_be_handed_over(found, values):
            self.wrongs.append(f"{action}: not ours, and not to be had")
        if names.KEY_ADOPTED in found.metadata and values.get(names.KEY_POLICY, "Retain") not in ("Retain", None):
            self.wrongs.append(f"{action}: adopted data is retained")
        metadata = {key: value for key, value in {**found.metadata, **values}.items() if value is not None}
        self._set(name, metadata=metadata, strict=strict if strict is not None else found.strict)

    def _set(self, name: str, **changes: Any) -> None:
        self.collections[name] = replace(self.collections[name], **changes)

    def _must_own(self, name: str, action: Any, *, adopted: bool = True) -> None:
        if not self.owned(name):
            self.wrongs.append(f"{action}: {name} is not ours")
        elif not adopted and names.KEY_ADOPTED in self.collections[name].metadata:
            self.wrongs.append(f"{action}: nothing is put into or taken out of what was adopted")

    def _named(self, name: str) -> set[str | None]:
        """Vectors that the collection's bindings name on it: another side's is another collection's."""
        metadata, found = self.collections[name].metadata, set()
        own = names.side_alias(ALIAS, names.generation_of(ALIAS, name) or 1)
        for key in (names.KEY_BINDING, names.KEY_PENDING, names.KEY_PREVIOUS):
            if key in metadata and metadata[key] != "{":
                binding = Binding.from_metadata(metadata[key])
                found |= {binding.vector} if binding.side in (None, own) else set()
        return found


def _bindings() -> st.SearchStrategy[Binding]:
    number, generation = st.sampled_from([1, 2]), st.sampled_from([1, 2])
    ages = st.sampled_from([case.LONG_AGO, NOW - timedelta(hours=1), NOW])
    dense = st.builds(lambda n, g, at: case.dense(n, g, at=at), number, generation, ages)
    return st.one_of(dense, st.builds(lambda g, at: case.lexical(g, at=at), generation, ages))


@st.composite
def collections(draw: st.DrawFn, name: str) -> CollectionState:
    """A collection under some name, of us, of a former us, of somebody or nobody, in any state."""
    generation = names.generation_of(ALIAS, name) or 1
    binding = draw(_bindings())
    made = replace(case.make_collection(binding, generation), name=name, points=draw(st.sampled_from([0, 5, 30_000])))
    values: dict[str, str | None] = {
        "uid": draw(st.sampled_from(["uid-1", "uid-1", "uid-0", "uid-a", None])),
        "fleet": draw(st.sampled_from(["prod", "prod", "prod", "dev", None])),
        "namespace_uid": draw(st.sampled_from(["ns-uid", "ns-uid", "before"])),
        "name": draw(st.sampled_from(["acme", "acme", "acme", "other"])),
        "former_uid": draw(st.sampled_from([None, "uid-0"])),
        "adopted": draw(st.sampled_from([None, None, "true"])) if name in OTHERS else None,
        "was_live": draw(st.sampled_from([None, "true"])),
    }
    if draw(st.booleans()):
        hours = draw(st.sampled_from([1, 71, 73, 500]))
        values["deleted_at"] = draw(st.sampled_from([format_time(NOW - timedelta(hours=hours)), "yesterday"]))
        values["policy"] = draw(st.sampled_from(["Retain", "Delete", "Snapshot"]))
        values["drop_after"] = draw(st.sampled_from([None, format_time(NOW - timedelta(hours=1)), "soon"]))
    for key in ("pending", "previous"):
        item = draw(st.one_of(st.none(), _bindings()))
        values[key] = item.to_metadata() if item is not None else None
    if draw(st.integers(0, 9)) == 0:
        values["binding"] = draw(st.sampled_from([None, "{"]))
    if draw(st.integers(0, 3)) == 0:
        values["released_at"] = draw(st.sampled_from([format_time(NOW), format_time(case.LONG_AGO), "soon"]))
    found = case.rebind(made, **values)
    if draw(st.integers(0, 3)) == 0:
        found = replace(found, metadata={})
    if draw(st.integers(0, 3)) == 0:
        found = replace(found, sparse=frozenset(), indexes={}, strict=None)
    return found


@st.composite
def living(draw: st.DrawFn, name: str) -> CollectionState:
    """A generation of this very tenant in the middle of its life: whatever a rebuild, a flip or a window has left."""
    generation = names.generation_of(ALIAS, name) or 1
    pending, previous = (draw(st.one_of(st.none(), _bindings())) for _ in range(2))
    made = case.make_collection(draw(_bindings()), generation, pending=pending, previous=previous)
    released = draw(st.sampled_from([None, NOW, case.LONG_AGO]))
    left = draw(st.dictionaries(st.sampled_from(["d-s1", "d-s2", "d-s7"]), st.just(8)))
    lost = draw(st.integers(0, 7)) == 0
    made = replace(made, dense={} if lost else {**left, **made.dense}, points=draw(st.sampled_from([0, 5, 30_000])))
    return case.rebind(made, released_at=format_time(released)) if released is not None else made


@st.composite
def access_secrets(draw: st.DrawFn) -> dict[str, AccessSecretState]:
    """What stands under the names of the tenant's Secrets, and under one that it has named before."""
    found = {}
    for name, good in {**case.secrets_of(), "acme-former": case.secrets_of()["acme-indexer"]}.items():
        kind = draw(st.sampled_from(["good", "good", "gone", "stale", "due", "type", "owner", "former", "unread"]))
        changes: dict[str, dict[str, Any]] = {
            "stale": {"inputs_digest": "sha256:x"},
            "due": {"renew_at": format_time(NOW)},
            "type": {"type": "Opaque"},
            "owner": {"owner_uid": "uid-a", "tenant": "other"},
            "former": {"owner_uid": "uid-0", "tenant": "acme"},
            "unread": {"renew_at": "soon"},
        }
        if kind != "gone":
            found[name] = replace(good, name=name, **changes.get(kind, {}))
    return found


@st.composite
def in_order(draw: st.DrawFn) -> World:
    """A tenant and a cell as they are in the middle of their work: its generations, sides and Secrets are its own."""
    there = {name: draw(living(name)) for name in GENERATIONS if name == GENERATIONS[0] or draw(st.booleans())}
    live = draw(st.sampled_from(sorted(there)))
    aliases = {ALIAS: live, side_of(ALIAS, names.generation_of(ALIAS, live) or 1): live}
    other = side_of(ALIAS, (names.generation_of(ALIAS, live) or 1) + 1)
    standing = [name for name in there if side_of(ALIAS, names.generation_of(ALIAS, name) or 1) == other]
    chosen = draw(st.sampled_from([None, *standing]))
    if chosen is not None:
        aliases[other] = chosen
    status: dict[str, Any] = {"collection": live, "cell": "eu-1", "accessSecrets": ["acme-former", "acme-storefront"]}
    spec = {"languages": draw(st.sampled_from([["en"], ["en"], ["de"]])), "deletionPolicy": "Delete"}
    metadata: dict[str, Any] = {"deletionTimestamp": case.STAMP} if draw(st.integers(0, 7)) == 0 else {}
    tenant = case.make_tenant(spec, status=status, **metadata)
    models = [case.make_model(), *(case.make_model(case.revision(number)) for number in (1, 2))]
    lacking = {(side, vector): draw(st.sampled_from([0, 3])) for side in SIDES for vector in ("", "d-s1", "d-s2")}
    facts = replace(case.make_facts(model=draw(st.sampled_from(models))), lacking=lacking)
    return World(tenant, case.SETTINGS, case.make_cell(), there, aliases, facts, [], draw(access_secrets()))


def worlds() -> st.SearchStrategy[World]:
    """A tenant and a cell, in the middle of their work or with nothing as it should be."""
    return st.one_of(in_order(), out_of_order())


@st.composite
def out_of_order(draw: st.DrawFn) -> World:
    """A tenant and a cell, neither of them as it should be."""
    there = {name: draw(collections(name)) for name in (*GENERATIONS, *OTHERS) if draw(st.booleans())}
    targets = st.sampled_from([*GENERATIONS, *OTHERS])
    aliases = {name: draw(targets) for name in (ALIAS, *SIDES, "somebody") if draw(st.booleans())}
    aliases = {name: target for name, target in aliases.items() if target in there}
    annotations = {names.CELL_ANNOTATION: "eu-1"}
    if draw(st.booleans()):
        annotations[names.ADOPT_ANNOTATION] = draw(st.sampled_from([*OTHERS, GENERATIONS[0], "missing"]))
    metadata: dict[str, Any] = {"annotations": annotations}
    if draw(st.integers(0, 3)) == 0:
        metadata["deletionTimestamp"] = case.STAMP
    spec = {
        "deletionPolicy": draw(st.sampled_from(["Retain", "Snapshot", "Delete"])),
        "deletionProtection": draw(st.booleans()),
        "paused": draw(st.integers(0, 5)) == 0,
        "languages": draw(st.sampled_from([["en"], ["de"]])),
        "undeleteWindow": draw(st.sampled_from(["72h", "1h"])),
    }
    status: dict[str, Any] = {"accessSecrets": ["acme-indexer", "acme-storefront"]}
    if draw(st.booleans()):
        status |= {"collection": draw(targets), "cell": "eu-1"}
    tenant = case.make_tenant(spec, status=status, **metadata)
    registration = replace(case.registration(), adoptable=frozenset({"adoptable", "prod.shop.other@g1"}))
    cell = case.make_cell(cell=registration)
    kind = draw(st.integers(0, 9))
    if kind == 0:
        cell = replace(cell, reachable=False, error="refused")
    elif kind == 1:
        cell = replace(cell, identity=draw(st.sampled_from([None, CellIdentity("dev", "eu-1", "cluster-1")])))
    model = draw(st.sampled_from([case.make_model(), case.make_model(case.revision(1))]))
    lacking = {(side, vector): draw(st.sampled_from([0, 3])) for side in SIDES for vector in ("", "d-s1", "d-s2")}
    facts = replace(case.make_facts(model=model), lacking=lacking if draw(st.booleans()) else {})
    settings = replace(case.SETTINGS, reclaim=draw(st.sampled_from(["Namespace", "Namespace", "Fleet"])))
    return World(tenant, settings, cell, there, aliases, facts, [], draw(access_secrets()))
