"""SearchTenant: one merchant's isolated, searchable collection and what it is bound to."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from searchops.api.meta import (
    DNS_SUBDOMAIN,
    ApiModel,
    ArtifactReference,
    CelRule,
    Duration,
    LabelSelector,
    Name,
    ObjectMeta,
    PrinterColumn,
)
from searchops.api.retrieval import RetrievalProfile
from searchops.api.v1alpha1.search_tenant_status import Isolation, SearchTenantStatus

LANGUAGES = ("en", "de", "fi", "fr", "es", "it", "nl", "sv")

FieldType = Literal["keyword", "text", "integer", "float", "bool", "datetime", "geo", "uuid"]
FieldRole = Literal["Code", "Title", "Body", "Filter"]
DeletionPolicy = Literal["Retain", "Snapshot", "Delete"]


class TenantReason(StrEnum):
    """Every reason a SearchTenant's conditions and events may carry."""

    READY = "Ready"
    INVALID_SPEC = "InvalidSpec"
    NOT_SUPPORTED = "NotSupported"
    PAUSED = "Paused"
    PLACED = "Placed"
    NO_CAPACITY = "NoCapacity"
    NO_MATCHING_CELL = "NoMatchingCell"
    CELL_UNREACHABLE = "CellUnreachable"
    CELL_MISSING = "CellMissing"
    CELL_IDENTITY_MISMATCH = "CellIdentityMismatch"
    CELL_KEY_TOO_WEAK = "CellKeyTooWeak"
    CELL_TOO_OLD = "CellTooOld"
    CELL_FULL = "CellFull"
    CELL_HAS_ROOM = "CellHasRoom"
    PROVISIONED = "Provisioned"
    COLLECTION_LOST = "CollectionLost"
    CONFLICT = "Conflict"
    ADOPTION_REFUSED = "AdoptionRefused"
    IN_SYNC = "InSync"
    REBUILD_REQUIRED = "RebuildRequired"
    REBUILDING = "Rebuilding"
    REBUILD_FAILED = "RebuildFailed"
    TOKENS_ISSUED = "TokensIssued"
    SECRET_CONFLICT = "SecretConflict"  # noqa: S105 - a condition's reason
    ISOLATION_HELD = "IsolationHeld"
    ISOLATION_BROKEN = "IsolationBroken"
    TOKEN_REGISTER_LOST = "TokenRegisterLost"  # noqa: S105 - an event's reason
    BOUND = "Bound"
    PINNED_QUERIES_TRIED = "PinnedQueriesTried"
    PINNED_QUERIES_LOST = "PinnedQueriesLost"
    PINNED_QUERIES_UNDECIDED = "PinnedQueriesUndecided"
    PINNED_QUERIES_INVALID = "PinnedQueriesInvalid"
    NO_ACTIVE_REVISION = "NoActiveRevision"
    MODEL_NOT_FOUND = "ModelNotFound"
    WITHIN_QUOTA = "WithinQuota"
    NEAR_QUOTA = "NearQuota"
    QUOTA_EXCEEDED = "QuotaExceeded"
    SEARCHABLE = "Searchable"
    SEARCH_FAILED = "SearchFailed"
    NOT_CONFIGURED = "NotConfigured"
    BACKED_UP = "BackedUp"
    BACKUP_STALE = "BackupStale"
    BACKUP_FAILED = "BackupFailed"
    RESTORE_FAILED = "RestoreFailed"
    WAITING = "Waiting"
    DELETING = "Deleting"


class ModelReference(ApiModel):
    """The EmbeddingModel that the tenant follows; `revision` pins one of its revisions.

    Attributes:
        name: an EmbeddingModel.
        revision: stay on this revision, whatever the model's rollout does.
    """

    name: Annotated[Name, Field(max_length=40)]
    revision: Annotated[str, Field(max_length=63)] | None = None


class Placement(ApiModel):
    """Which cells may hold the tenant; an empty selector allows every cell."""

    cell_selector: LabelSelector = Field(default_factory=LabelSelector)


class Sharding(ApiModel):
    """Shards and replicas of the tenant's own collection.

    Attributes:
        shards: a change is a rebuild.
        replicas: copies of each shard.
    """

    shards: Annotated[int, Field(ge=1, le=64)] = 1
    replicas: Annotated[int, Field(ge=1, le=8)] = 1


class PayloadField(ApiModel):
    """One field of the payload that is indexed, and what it means to retrieval.

    Attributes:
        name: name in the payload; dots reach into objects.
        type: how the database indexes it.
        role: what retrieval does with it: Code is matched exactly, Title and Body are tokenised, Filter only filters.
    """

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$")]
    type: FieldType
    role: FieldRole


class RetrievalReference(ApiModel):
    """A built-in profile by name, or one given inline (then `profile` is only its label).

    Attributes:
        profile: default, plain, or a label for what is given inline.
    """

    profile: Name = "default"
    inline: RetrievalProfile | None = None


class Quotas(ApiModel):
    """Bounds of one merchant; 0 means no bound.

    Attributes:
        max_points: documents.
        max_vector_megabytes: megabytes of vectors.
        searches_per_minute: enforced by the gateway, with the database's strict mode behind it.
        writes_per_minute: enforced by the gateway, with the database's strict mode behind it.
    """

    max_points: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    max_vector_megabytes: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    searches_per_minute: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    writes_per_minute: Annotated[int, Field(ge=0, le=100_000_000)] = 0


class AccessEntry(ApiModel):
    """One credential, written to one Secret in the tenant's namespace.

    Attributes:
        name: name of the entry.
        role: Search may read, Index may read and write.
        secret_name: Secret that is made in the tenant's namespace.
        direct: true where the writer bypasses the gateway; cutovers are then manual.
    """

    name: Name
    role: Literal["Search", "Index"]
    secret_name: Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN)]
    direct: bool | None = None


class TenantGate(ApiModel):
    """Queries that a merchant adds to the gate; they may never loosen a margin.

    Attributes:
        pinned: a holdout directory, each of whose queries must hold before this tenant follows another revision.
    """

    pinned: ArtifactReference | None = None


class Backup(ApiModel):
    """When snapshots are taken and how many are kept.

    Attributes:
        schedule: cron expression with five fields, in UTC; each tenant starts a while after it.
        keep: newest snapshots that are kept.
    """

    schedule: Annotated[str, Field(min_length=9, max_length=100)]
    keep: Annotated[int, Field(ge=1, le=365)] = 7


class SearchTenantSpec(ApiModel):
    """What a platform team declares of one merchant.

    Attributes:
        isolation: Collection: a collection of its own. ShardKey and Shared: a part of a shared one. A change is
            a rebuild.
        languages: languages of the products; they choose the analyser's stemming.
        fields: payload fields that are indexed; others are stored only.
        document: template of the text that is embedded; {name} stands for a payload field.
        access: credentials, one Secret each.
        deletion_policy: what becomes of the collection: Retain keeps it, Snapshot stores a snapshot and drops it,
            Delete drops it.
        deletion_protection: refuse to delete the tenant.
        undelete_window: how long a tenant of the same name gets its data back after a deletion.
        paused: change nothing; tokens that were handed out are kept valid, renewed and signed anew as they are.
    """

    cel_rules: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "self.isolation == 'Collection' || !has(self.sharding) || self.sharding.shards <= 1",
            "a tenant of a shared collection has no shards of its own: remove sharding or use isolation Collection",
            ".sharding.shards",
            "FieldValueForbidden",
        ),
        CelRule(
            "self.isolation == 'Collection' || !has(self.backup)",
            "backups are snapshots of whole collections, and a shared one holds other tenants too: remove backup or "
            "use isolation Collection",
            ".backup",
            "FieldValueForbidden",
        ),
        CelRule(
            "self.isolation == 'Collection' || !has(self.deletionPolicy) || self.deletionPolicy != 'Snapshot'",
            "a snapshot of a shared collection would hold other tenants too: use Retain or Delete, or isolation "
            "Collection",
            ".deletionPolicy",
            "FieldValueForbidden",
        ),
        CelRule(
            "self.isolation == 'Collection' || !has(self.access) || self.access.all(a, !has(a.direct) || !a.direct)",
            "nobody but the gateway may write to a shared collection: remove direct or use isolation Collection",
            ".access",
            "FieldValueForbidden",
        ),
        CelRule(
            "self.fields.filter(f, f.role == 'Title').size() >= 1",
            "at least one field needs the role Title: results are shown and tokenised by it",
            ".fields",
            "FieldValueRequired",
        ),
        CelRule(
            "!has(self.access) || self.access.all(a, self.access.exists_one(b, b.secretName == a.secretName))",
            "two access entries name the same secretName: each entry needs a Secret of its own",
            ".access",
        ),
        CelRule(
            "!has(self.access) || self.access.all(a, !has(a.direct) || !a.direct || a.role == 'Index')",
            "direct is for writers only: an entry with role Search cannot be direct",
            ".access",
            "FieldValueForbidden",
        ),
    )

    model: ModelReference
    isolation: Isolation = "Collection"
    placement: Placement = Field(default_factory=Placement)
    sharding: Sharding = Field(default_factory=Sharding)
    languages: Annotated[
        tuple[Literal["en", "de", "fi", "fr", "es", "it", "nl", "sv"], ...], Field(min_length=1, max_length=8)
    ] = ("en",)
    fields: Annotated[
        tuple[PayloadField, ...],
        Field(
            min_length=1,
            max_length=64,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    document: Annotated[str, Field(min_length=1, max_length=1024)] = "{title}"
    retrieval: RetrievalReference = Field(default_factory=RetrievalReference)
    quotas: Quotas = Field(default_factory=Quotas)
    access: Annotated[
        tuple[AccessEntry, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    gate: TenantGate | None = None
    deletion_policy: DeletionPolicy = "Retain"
    deletion_protection: bool = False
    undelete_window: Duration = "72h"
    backup: Backup | None = None
    paused: bool = False


class SearchTenant(ApiModel):
    """One merchant's isolated, searchable collection and the model it is bound to."""

    kind: ClassVar[str] = "SearchTenant"
    plural: ClassVar[str] = "searchtenants"
    short_names: ClassVar[tuple[str, ...]] = ("stn",)
    scope: ClassVar[Literal["Namespaced", "Cluster"]] = "Namespaced"
    name_limit: ClassVar[int] = 63
    columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        PrinterColumn("Phase", ".status.phase"),
        PrinterColumn("Cell", ".status.cell"),
        PrinterColumn("Model", ".status.binding.revision"),
        PrinterColumn("Points", ".status.usage.points", "integer"),
        PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
        PrinterColumn("Collection", ".status.collection", priority=1),
        PrinterColumn("Isolation", ".status.isolation.mode", priority=1),
        PrinterColumn("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
    )

    metadata: ObjectMeta
    spec: SearchTenantSpec
    status: SearchTenantStatus = Field(default_factory=SearchTenantStatus)
