"""What a tenant's collection should look like, and what differs from what it looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchops.api.meta import format_time
from searchops.api.observed import CollectionDesign, StrictMode
from searchops.api.rates import MerchantRates
from searchops.api.retrieval import (
    BUILTIN_PROFILES,
    AnalyserSettings,
    Binding,
    FieldRoles,
    RetrievalProfile,
    dense_vector,
    lexical_vector,
    trigram_vector,
)
from searchops.planning.names import (
    KEY_BINDING,
    KEY_FLEET,
    KEY_GENERATION,
    KEY_NAME,
    KEY_NAMESPACE,
    KEY_NAMESPACE_UID,
    KEY_RATES,
    KEY_UID,
    alias_name,
    collection_name,
    short_hash,
    side_alias,
)

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.observed import CollectionState
    from searchops.api.v1alpha1.embedding_model_status import RevisionStatus
    from searchops.api.v1alpha1.search_tenant import SearchTenant, SearchTenantSpec
    from searchops.planning.binding_state import BindingState

NO_LIMIT = 4_000_000_000
"""A strict-mode limit cannot be unset (null keeps it, 0 is refused): this stands for *no limit*."""
LARGEST_BATCH = 512
READ_TOKENS = 6
"""One search is a batch of three legs and one fused query over the same three: six read tokens."""
QUERY_LIMIT = 1000
INDEXING_THRESHOLD_POINTS = 20_000
"""Above this a second vector dismantles the live index (measured): BlueGreen is the better strategy there."""
MEGABYTE = 1_000_000
SHARED_STRICT = StrictMode(
    max_points=NO_LIMIT,
    max_vector_bytes=NO_LIMIT,
    reads_per_minute=NO_LIMIT,
    writes_per_minute=NO_LIMIT,
    upsert_batch=LARGEST_BATCH,
    query_limit=QUERY_LIMIT,
)
"""Of a collection of many tenants: a limit of it would be one for all of them, so their rates are the gateway's."""
INDEX_TYPES = {"float": "float", "integer": "integer", "keyword": "keyword", "text": "text", "bool": "bool"}


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a collection belongs to, as its flat metadata says it."""

    fleet: str
    uid: str
    namespace: str
    namespace_uid: str
    name: str

    @property
    def alias(self) -> str:
        """The tenant's public name."""
        return alias_name(self.fleet, self.namespace, self.name)

    def owns(self, collection: CollectionState) -> bool:
        """Whether the collection's metadata names this very object: fleet and uid, not the name alone."""
        metadata = collection.metadata
        return metadata.get(KEY_FLEET) == self.fleet and metadata.get(KEY_UID) == self.uid

    def contradicted(self, collection: CollectionState) -> tuple[str, ...]:
        """What a collection of this owner says of its name that is not so, for people; empty where nothing.

        By uid it is ours, by name somebody else's: one of the two was written by another hand.
        """
        wanted = {KEY_NAMESPACE: self.namespace, KEY_NAMESPACE_UID: self.namespace_uid, KEY_NAME: self.name}
        seen = ((key, collection.metadata.get(key), value) for key, value in wanted.items())
        return tuple(f"{key} is {found!r:.80}, wanted {value!r}" for key, found, value in seen if found != value)

    def metadata(self, generation: int) -> dict[str, str]:
        """The flat ownership keys."""
        return {
            KEY_FLEET: self.fleet,
            KEY_UID: self.uid,
            KEY_NAMESPACE: self.namespace,
            KEY_NAMESPACE_UID: self.namespace_uid,
            KEY_NAME: self.name,
            KEY_GENERATION: str(generation),
        }


@dataclass(frozen=True, slots=True)
class SchemaDifference:
    """What can be mended in place, and what needs a rebuild.

    Attributes:
        rates: value of the metadata key that the gateway reads the merchant's rates from, where it differs.
    """

    missing_indexes: tuple[tuple[str, str], ...]
    strict: StrictMode | None
    rebuild: tuple[str, ...]
    rates: str | None = None


def analyser_settings(spec: SearchTenantSpec) -> AnalyserSettings:
    """The analyser of a tenant; its id is part of the lexical vectors' names."""
    return AnalyserSettings(languages=tuple(spec.languages))


def profile_of(spec: SearchTenantSpec) -> RetrievalProfile | None:
    """The retrieval profile that the spec names or carries; None where the name is not built in."""
    if spec.retrieval.inline is not None:
        return spec.retrieval.inline
    return BUILTIN_PROFILES.get(spec.retrieval.profile)


def field_roles(spec: SearchTenantSpec) -> FieldRoles:
    """Payload fields by role."""
    by_role = {
        role: tuple(f.name for f in spec.fields if f.role == role) for role in ("Code", "Title", "Body", "Filter")
    }
    return FieldRoles(code=by_role["Code"], title=by_role["Title"], body=by_role["Body"], filter=by_role["Filter"])


def strict_mode(spec: SearchTenantSpec, *, lifted: bool, filling: bool = False) -> StrictMode:
    """Quotas as the database's backstop.

    A three-leg search costs six read tokens, limits hold per shard, and a batch above the write limit would be
    refused on every try. The merchant's own rates are the gateway's, whatever is lifted here.

    Args:
        spec: of the tenant.
        lifted: two sides are written, of which one collection may hold both: no write rate, twice the bytes.
        filling: a rebuild reads the live documents and measures recall: its reads must neither be refused nor be
            taken from the shoppers', so there is no read rate until the side is switched to or given up.
    """
    quotas = spec.quotas
    writes = NO_LIMIT
    if quotas.writes_per_minute and not lifted:
        writes = max(LARGEST_BATCH, -(-quotas.writes_per_minute // spec.sharding.shards))
    size = quotas.max_vector_megabytes * MEGABYTE * (2 if lifted else 1)
    return StrictMode(
        max_points=quotas.max_points or NO_LIMIT,
        max_vector_bytes=size or NO_LIMIT,
        reads_per_minute=NO_LIMIT if filling else quotas.searches_per_minute * READ_TOKENS or NO_LIMIT,
        writes_per_minute=writes,
        upsert_batch=LARGEST_BATCH,
        query_limit=QUERY_LIMIT,
    )


def rates_of(spec: SearchTenantSpec) -> MerchantRates:
    """The merchant's rates, which the gateway enforces whole also while strict mode is lifted."""
    quotas = spec.quotas
    return MerchantRates(
        searches_per_minute=quotas.searches_per_minute,
        writes_per_minute=quotas.writes_per_minute,
        max_points=0 if spec.isolation == "Collection" else quotas.max_points,
    )


def indexes_of(spec: SearchTenantSpec) -> tuple[tuple[str, str], ...]:
    """Payload indexes: the declared fields and the two that retrieval itself filters on."""
    declared = {field.name: INDEX_TYPES.get(field.type, field.type) for field in spec.fields if field.role == "Filter"}
    declared |= {field.name: "keyword" for field in spec.fields if field.role == "Code"}
    return tuple(sorted({**declared, "_deleted": "integer", "_missed": "keyword", "_version": "integer"}.items()))


def layout_of(spec: SearchTenantSpec) -> str:
    """What the tenants of one shared collection have in common; empty for a collection of one's own.

    Lexical vectors are named by the analyser, and a payload index holds for a whole collection: two tenants whose field
    of one name has two types cannot share one.
    """
    if spec.isolation == "Collection":
        return ""
    indexes = (f"{name}={kind}" for name, kind in indexes_of(spec))
    analyser = analyser_settings(spec).analyser_id
    return short_hash(spec.isolation, analyser, str(spec.sharding.replicas), *indexes, length=8)


def lexical_binding(spec: SearchTenantSpec, profile: RetrievalProfile, side: str, now: datetime) -> Binding:
    """The binding without an encoder: what a tenant serves while nothing is promoted."""
    return Binding(
        analyser=analyser_settings(spec),
        profile=profile,
        document=spec.document,
        fields=field_roles(spec),
        side=side,
        since=format_time(now),
    )


def dense_binding(
    spec: SearchTenantSpec, profile: RetrievalProfile, revision: RevisionStatus, side: str, now: datetime
) -> Binding:
    """The binding to a revision: encoder, vector, fusion and analyser in one value."""
    return lexical_binding(spec, profile, side, now).model_copy(
        update={
            "model": spec.model.name,
            "revision": revision.revision,
            "encoder": revision.revision,
            "vector": dense_vector(revision.space or ""),
            "dimension": revision.dimension,
            "manifest_digest": revision.manifest_digest,
        }
    )


def collection_design(
    tenant: SearchTenant,
    owner: Owner,
    generation: int,
    binding: Binding,
    *,
    lifted: bool = False,
    filling: bool = False,
) -> CollectionDesign:
    """A generation of a tenant's collection, ready to be filled; `lifted` and `filling` as for `strict_mode`."""
    spec = tenant.spec
    a8 = binding.analyser_id
    dense = ((binding.vector, binding.dimension),) if binding.vector and binding.dimension else ()
    metadata = {
        **owner.metadata(generation),
        KEY_BINDING: binding.to_metadata(),
        KEY_RATES: rates_of(spec).to_metadata(),
    }
    return CollectionDesign(
        name=collection_name(owner.alias, generation),
        dense=dense,
        sparse=(lexical_vector(a8), trigram_vector(a8)),
        indexes=indexes_of(spec),
        shards=spec.sharding.shards,
        replicas=spec.sharding.replicas,
        strict=strict_mode(spec, lifted=lifted, filling=filling) if spec.isolation == "Collection" else SHARED_STRICT,
        metadata=tuple(sorted(metadata.items())),
        tier=spec.isolation,
        layout=layout_of(spec),
    )


def schema_digest(spec: SearchTenantSpec) -> str:
    """What a rebuild is made for, besides the vector space."""
    return short_hash(
        analyser_settings(spec).analyser_id,
        spec.document,
        str(spec.sharding.shards),
        str(spec.sharding.replicas),
        spec.isolation,
        *((layout_of(spec),) if spec.isolation != "Collection" else ()),
        length=8,
    )


def compare_schema(spec: SearchTenantSpec, collection: CollectionState, state: BindingState) -> SchemaDifference:
    """Declared fields only: what the server adds by itself is not drift, nor is what a rebuild has lifted."""
    binding, filling = state.binding, state.pending is not None
    lifted = filling or state.previous is not None
    missing = tuple((name, kind) for name, kind in indexes_of(spec) if collection.indexes.get(name) != kind)
    strict = SHARED_STRICT if collection.slice else strict_mode(spec, lifted=lifted, filling=filling)
    rebuild = []
    if collection.tier != spec.isolation:
        rebuild.append(f"isolation {collection.tier} → {spec.isolation} (spec.isolation)")
    elif collection.layout != layout_of(spec):
        rebuild.append(f"shared layout {collection.layout} → {layout_of(spec)} (spec.fields, languages or replicas)")
    if rebuild and (collection.slice or spec.isolation != "Collection"):
        missing = ()  # an index of a shared collection is everybody's, and what is left is left as it is
    wanted = analyser_settings(spec).analyser_id
    if binding.analyser_id != wanted:
        rebuild.append(f"analyser {binding.analyser_id} → {wanted} (spec.languages)")
    if binding.document != spec.document:
        rebuild.append(f"document {binding.document!r} → {spec.document!r} (spec.document)")
    if collection.shards != spec.sharding.shards:
        rebuild.append(f"shards {collection.shards} → {spec.sharding.shards} (spec.sharding.shards)")
    if collection.replicas != spec.sharding.replicas:
        rebuild.append(f"replicas {collection.replicas} → {spec.sharding.replicas} (spec.sharding.replicas)")
    a8 = binding.analyser_id
    lost = [name for name in (lexical_vector(a8), trigram_vector(a8)) if name not in collection.sparse]
    if binding.vector is not None and collection.dense.get(binding.vector) != binding.dimension:
        lost.append(binding.vector)
    if lost:
        rebuild.append(f"vectors {', '.join(lost)} of the binding are not in {collection.name} as they should be")
    rates = rates_of(spec).to_metadata()
    return SchemaDifference(
        missing,
        strict if collection.strict != strict else None,
        tuple(rebuild),
        rates if collection.metadata.get(KEY_RATES) != rates else None,
    )


def side_of(alias: str, generation: int) -> str:
    """The side alias of a generation."""
    return side_alias(alias, generation)
