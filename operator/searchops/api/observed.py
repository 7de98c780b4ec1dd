"""What the outside world looked like when it was read: cells, collections, servers, Jobs, Secrets.

Plain frozen values that ports return and planners take; no client library's type ever gets past an adapter.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.shared import SliceAddress

Tier = Literal["Collection", "ShardKey", "Shared"]


@dataclass(frozen=True, slots=True)
class CellRegistration:
    """One Qdrant cluster as its Secret registers it. The keys are not part of `repr`.

    Attributes:
        problem: why the Secret cannot be used, naming it and the field; nothing else is known of the cell then.
    """

    name: str
    labels: Mapping[str, str]
    urls: tuple[str, ...]
    grpc_port: int | None
    max_collections: int
    adoptable: frozenset[str] = frozenset()
    draining: bool = False
    ca_cert: str | None = field(default=None, repr=False)
    api_key: str = field(default="", repr=False)
    alt_api_key: str = field(default="", repr=False)
    problem: str = ""

    @property
    def key_is_strong(self) -> bool:
        """Every tenant holds a MAC of the key, so a short one can be found by guessing."""
        return len(self.api_key.encode()) >= 32


@dataclass(frozen=True, slots=True)
class PoolRegistration:
    """A set of Triton servers as its Secret registers it."""

    name: str
    urls: tuple[str, ...]
    grpc_urls: tuple[str, ...]
    repository: str
    accelerator: str


@dataclass(frozen=True, slots=True)
class CellIdentity:
    """Who owns a cell: written at first contact, compared ever after."""

    fleet: str
    cell: str
    cluster: str

    def at(self, cell: str) -> CellIdentity:
        """What this operator wants a cell of this name to say."""
        return replace(self, cell=cell)


@dataclass(frozen=True, slots=True)
class CellState:
    """One cell as it answered, or why it did not.

    Attributes:
        collections: by name, and the slices of shared ones, each under the name of a generation.
        aliases: with the names of tenants whose slices they point to.
        maps_percent: memory maps of the fullest node, of their limit; None where no node has told.
        files_percent: open files of the fullest node, of their limit; None where no node has told.
        version: what the server says it is, such as ``1.18.3``; empty where it does not say.
        shared: collections of many tenants, among `collections`.
        slices: how many of `collections` are slices: they take no room of their own.
        unread: those of `shared` that could not be read just now: whose slices stand there is not known.
        unreadable: uids of tenants whose record in a shared collection this version cannot read.
    """

    registration: CellRegistration
    reachable: bool
    error: str = ""
    identity: CellIdentity | None = None
    collections: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)
    maps_percent: int | None = None
    files_percent: int | None = None
    version: str = ""
    shared: frozenset[str] = frozenset()
    slices: int = 0
    unread: frozenset[str] = frozenset()
    unreadable: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The cell's name."""
        return self.registration.name

    @property
    def held(self) -> int:
        """Collections that the cell holds, retired generations and shared ones included."""
        return len(self.collections) - self.slices


@dataclass(frozen=True, slots=True)
class CollectionOutline:
    """What a bulk read tells of a collection: all of its configuration, but neither points nor payload indexes.

    Attributes:
        digest: equal for equal configuration and metadata, within one process.
        slice: where its points stand, if it is one tenant's slice of a shared collection.
        layout: digest of what the tenants of that shared collection have in common.
    """

    name: str
    digest: int
    dense: Mapping[str, int]
    sparse: frozenset[str]
    shards: int
    replicas: int
    strict: StrictMode | None
    metadata: Mapping[str, str]
    slice: SliceAddress | None = None
    layout: str = ""


@dataclass(frozen=True, slots=True)
class CellContents:
    """Everything that two requests tell of a cell.

    Attributes:
        foreign_index_writes: requests that made or removed payload indexes since the server started, those of this
            process left out: while it stays the same, nobody else has touched an index. None where this process
            made indexes while it was read, so that they cannot be told apart.
        server: changes when the answering server was started anew, or is another node.
        unreadable: records in shared collections that this version cannot read, as collection and uid.
    """

    registration: CellRegistration
    version: str
    identity: CellIdentity | None
    collections: Mapping[str, CollectionOutline]
    aliases: Mapping[str, str]
    foreign_index_writes: int | None
    server: str
    unreadable: frozenset[tuple[str, str]] = frozenset()

    @property
    def name(self) -> str:
        """The cell's name."""
        return self.registration.name

    @property
    def held(self) -> int:
        """Collections that the cell holds: slices take no room of their own."""
        return sum(outline.slice is None for outline in self.collections.values())


@dataclass(frozen=True, slots=True)
class CellLoad:
    """What the metrics of a cell's nodes tell: points of each collection, and how near a process is to its limits.

    Attributes:
        points: the greatest number that any node tells.
        maps_percent: memory maps of the fullest node's process, of its system's limit.
        files_percent: open files of the fullest node's process, of its limit.
        full: what it says of a quota of the whole server that is used up; empty where none is, or it does not say.
    """

    points: Mapping[str, int]
    maps_percent: int | None = None
    files_percent: int | None = None
    full: str = ""


@dataclass(frozen=True, slots=True)
class StrictMode:
    """The strict-mode limits that a tenant's collection declares; every one always written (null would keep it)."""

    max_points: int
    max_vector_bytes: int
    reads_per_minute: int
    writes_per_minute: int
    upsert_batch: int
    query_limit: int


@dataclass(frozen=True, slots=True)
class CollectionDesign:
    """A collection as it should be created, or a slice of one that tenants share.

    Attributes:
        layout: for the shared tiers the digest of what tenants of one collection have in common.
    """

    name: str
    dense: tuple[tuple[str, int], ...]
    sparse: tuple[str, ...]
    indexes: tuple[tuple[str, str], ...]
    shards: int
    replicas: int
    strict: StrictMode
    metadata: tuple[tuple[str, str], ...]
    tier: Tier = "Collection"
    layout: str = ""


@dataclass(frozen=True, slots=True)
class CollectionState:
    """A collection as it is, or one tenant's slice of a shared one in the same form.

    Attributes:
        points: approximately; of a slice exactly.
        slice: where the points stand, if this is a slice; its name is then no collection's.
        layout: of a slice, as in `CollectionDesign`.
        points_beside: of a slice whose points share segments with other tenants': approximately all of theirs.
    """

    name: str
    points: int
    dense: Mapping[str, int]
    sparse: frozenset[str]
    indexes: Mapping[str, str]
    shards: int
    replicas: int
    strict: StrictMode | None
    metadata: Mapping[str, str]
    status: str = "green"
    pending_updates: int = 0
    indexed_vectors: int | None = None
    optimizer_error: str = ""
    slice: SliceAddress | None = None
    layout: str = ""
    points_beside: int = 0

    @property
    def indexed_together(self) -> int:
        """Points whose index a second vector would dismantle: those of its segments, whosever they are."""
        return max(self.points, self.points_beside)

    @property
    def tier(self) -> Tier:
        """Which isolation it gives."""
        return "Collection" if self.slice is None else self.slice.tier


@dataclass(frozen=True, slots=True)
class RecallSample:
    """Approximate search beside exact search with stored vectors as queries.

    Attributes:
        queries: how many documents were used as queries; 0 where none could be read.
        top: hits wanted of each.
        wanted: hits of exact search.
        found: those of approximate search that score as high as the last exact one, so that ties are no loss.
    """

    queries: int
    top: int
    wanted: int
    found: int

    @property
    def share(self) -> float:
        """Recall; 1 where exact search finds nothing either."""
        return self.found / self.wanted if self.wanted else 1.0


@dataclass(frozen=True, slots=True)
class SearchProbe:
    """The answer to a real query through the alias with a tenant's own token.

    Attributes:
        silent: nothing was answered that says yes or no.
    """

    ok: bool
    error: str = ""
    silent: bool = False


@dataclass(frozen=True, slots=True)
class AccessSecretState:
    """A Secret under the name of an access entry.

    Attributes:
        addressed: whether it tells the database's address.
        tenant: name of the tenant that it was written for: where that one is gone, its successor takes the Secret over.
    """

    name: str
    type: str
    owner_uid: str
    inputs_digest: str
    renew_at: str
    token: str = field(default="", repr=False)
    tenant: str = ""
    token_id: str = ""
    key_id: str = ""
    addressed: bool = False

    def held_by(self, type_: str, uid: str, tenant: str) -> bool:
        """Whether it is this object's, or a former one's of its very name: the API server keeps one under a name."""
        return self.type == type_ and (self.owner_uid == uid or self.tenant == tenant != "")


@dataclass(frozen=True, slots=True)
class TokenGrant:
    """One access entry in a cell's register of valid tokens.

    Attributes:
        id: the point's.
        value: what the entry's tokens claim in ``value_exists``; no secret.
        uid: the tenant's.
        secret: name of the Secret that holds the token, so that it is found without the tenant's status.
    """

    id: str
    value: str
    uid: str
    entry: str
    secret: str


@dataclass(frozen=True, slots=True)
class RegisterState:
    """A cell's register of valid tokens, as far as one tenant goes.

    Attributes:
        owner: whose it says it is; None where it says nothing that can be read.
        grants: the tenant's entries.
        former: entries of former objects of its name, whose collections it has taken back.
        indexed: whether the fields that tokens are looked up by are indexed; without, every request pays a scan.
    """

    exists: bool
    owner: CellIdentity | None = None
    grants: tuple[TokenGrant, ...] = ()
    former: tuple[TokenGrant, ...] = ()
    indexed: bool = True


class Trial(Enum):
    """How an attempt with a token ended. Silence is neither a success nor a refusal."""

    OPENED = "opened"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """What became of the last tries of a foreign tenant's token on this tenant, and of its own on others.

    Attributes:
        broken: where a token got through that must not; empty where every try was refused.
    """

    broken: str = ""


@dataclass(frozen=True, slots=True)
class JobState:
    """A worker Job and what its Pods said."""

    name: str
    uid: str
    owner_uid: str = ""
    kind: str = ""
    suspended: bool = False
    active: int = 0
    succeeded: int = 0
    failed: int = 0
    complete: bool = False
    failure: str = ""
    failure_reason: str = ""
    start_time: str = ""
    completion_time: str = ""


@dataclass(frozen=True, slots=True)
class OwnedJob:
    """A worker Job as the sweep sees it: which one it is, and which object its labels and annotations say it is for."""

    name: str
    uid: str
    owner_kind: str
    owner_uid: str
    owner_namespace: str
    owner_name: str


@dataclass(frozen=True, slots=True)
class ServerState:
    """One Triton server of a pool: which models it has, in which state; or why it did not answer."""

    url: str
    grpc_url: str
    reachable: bool
    error: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    version: str = ""

    def ready(self, model: str) -> bool:
        """Whether the server says that it serves the model; inference proves it."""
        return self.models.get(model) == "READY"
