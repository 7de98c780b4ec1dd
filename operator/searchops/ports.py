"""What the controllers need of the world, as Protocols; `searchops.adapters` fills them.

Every method has a deadline of its own inside the adapter and raises only `searchops.runtime.errors`. A write that
timed out is *unknown*: the caller reads before it repeats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from searchops.api.observed import (
        AccessSecretState,
        CanaryResult,
        CellIdentity,
        CellRegistration,
        CellState,
        CollectionDesign,
        CollectionState,
        JobState,
        PoolRegistration,
        RegisterState,
        SearchProbe,
        ServerState,
        StrictMode,
        TokenGrant,
        Trial,
    )
    from searchops.api.room import CellHold


class CellReader(Protocol):
    """Reads of one cell."""

    async def survey(self, cell: CellRegistration) -> CellState:
        """Collections, aliases and identity; an unreachable cell is an answer, not an exception."""
        ...

    async def describe(self, cell: CellRegistration, collection: str) -> CollectionState | None:
        """One collection, or None where it does not exist."""
        ...

    async def count(
        self, cell: CellRegistration, collection: str, *, lacking: str | None = None, missed: str | None = None
    ) -> int:
        """Exact number of live points, or of those that lack the named vector.

        With `missed` it is the points, deleted ones too, whose last version that previous side has not got.
        """
        ...

    async def probe_search(self, cell: CellRegistration, alias: str, vector: str, token: str) -> SearchProbe:
        """A real sparse query through the alias with the tenant's own token."""
        ...


class CellWriter(Protocol):
    """DDL and metadata of one cell; serial per cell."""

    async def claim(self, cell: CellRegistration, identity: CellIdentity) -> None:
        """Write the cell's identity where none is there; a different one raises Terminal."""
        ...

    async def create_collection(self, cell: CellRegistration, design: CollectionDesign) -> None:
        """Create with vectors, strict mode and metadata; an existing equal one of ours is success."""
        ...

    async def create_index(self, cell: CellRegistration, collection: str, field: str, kind: str) -> None:
        """Payload index on a field; the same again is a no-op."""
        ...

    async def point_alias(self, cell: CellRegistration, alias: str, collection: str) -> None:
        """Create or move one alias, in one action, and read it back."""
        ...

    async def remove_alias(self, cell: CellRegistration, alias: str) -> None:
        """Remove an alias; a missing one is success."""
        ...

    async def patch_metadata(
        self, cell: CellRegistration, collection: str, metadata: Mapping[str, str | None], strict: StrictMode | None
    ) -> None:
        """One PATCH of flat metadata keys (None removes) and, where given, strict mode; read back."""
        ...

    async def add_vector(self, cell: CellRegistration, collection: str, vector: str, dimension: int) -> None:
        """Add a named dense vector; an existing one of the same size is success."""
        ...

    async def remove_vector(self, cell: CellRegistration, collection: str, vector: str) -> None:
        """Remove a named vector; a missing one is success."""
        ...

    async def drop_collection(self, cell: CellRegistration, collection: str) -> None:
        """Drop a collection; a missing one is success. The caller has proved that it is ours."""
        ...


class CellDirectory(Protocol):
    """The cells and pools that are registered as Secrets in the operator's namespace."""

    def cells(self) -> Mapping[str, CellRegistration]:
        """Every registered cell by name."""
        ...

    def pools(self) -> Mapping[str, PoolRegistration]:
        """Every registered pool by name."""
        ...


class ModelServers(Protocol):
    """The Triton servers of a pool, each on its own."""

    async def survey(self, pool: PoolRegistration) -> tuple[ServerState, ...]:
        """Every server with the state of each model in its repository index."""
        ...

    async def load(self, server: ServerState, model: str) -> None:
        """Ask one server to load one model; success is proved by the next survey, not by the answer."""
        ...

    async def unload(self, server: ServerState, model: str) -> None:
        """Ask one server to unload one model."""
        ...

    async def infer(self, server: ServerState, model: str, texts: Sequence[str]) -> list[list[float]]:
        """Encode texts with the text model of one server."""
        ...


class ObjectWriter(Protocol):
    """Writes to our own kinds; every one guarded by resourceVersion."""

    async def patch_status(self, plural: str, namespace: str, name: str, body: Mapping[str, Any]) -> str:
        """Merge-patch ``/status``; returns the new resourceVersion."""
        ...

    async def patch_metadata(self, plural: str, namespace: str, name: str, body: Mapping[str, Any]) -> str:
        """Merge-patch ``metadata``; returns the new resourceVersion."""
        ...


class ObjectReader(Protocol):
    """Live reads of our own kinds, for decisions that must not rest on a cache."""

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any] | None:
        """The live object, or None on 404."""
        ...

    async def cluster_uid(self) -> str:
        """Uid of the namespace kube-system: the identity of this Kubernetes cluster."""
        ...

    async def namespace_uid(self, namespace: str) -> str:
        """Uid of a namespace."""
        ...


class NamespaceLabels(Protocol):
    """The label `searchops.dev/protected` of namespaces."""

    async def labelled(self) -> Mapping[str, str]:
        """Its value by namespace, for every namespace that carries it."""
        ...

    async def protect(self, namespace: str) -> None:
        """Set it as ours where it is not there; Conflict where the namespace was changed meanwhile."""
        ...

    async def release(self, namespace: str) -> None:
        """Remove it where it is ours; Conflict where the namespace was changed meanwhile."""
        ...


class AccessSecrets(Protocol):
    """Secrets with tenants' tokens."""

    async def read(self, namespace: str, name: str) -> AccessSecretState | None:
        """The Secret under this name, whoever owns it."""
        ...

    async def write(
        self,
        namespace: str,
        name: str,
        *,
        owner: Mapping[str, str],
        data: Mapping[str, str],
        annotations: Mapping[str, str],
    ) -> AccessSecretState:
        """Create or replace a Secret of ours, or of a former tenant of the same name (annotation searchops.dev/tenant).

        Returns what the API server says is there now.
        One that is not ours raises Terminal, one that was changed Conflict.
        """
        ...

    async def delete(self, namespace: str, name: str, *, owner_uid: str) -> None:
        """Delete a Secret only where type and owner are ours; one that was changed meanwhile raises Conflict."""
        ...


class TokenRegister(Protocol):
    """A cell's collection of the tokens that are valid; nobody else writes it."""

    async def read(self, cell: CellRegistration, collection: str, uid: str, *, exists: bool) -> RegisterState:
        """Whose it is, and one tenant's entries, at most half a minute old. `exists` is what a survey has shown."""
        ...

    async def prepare(self, cell: CellRegistration, collection: str, owner: CellIdentity, replicas: int) -> None:
        """Create it with its indexes; an existing one of this owner is success, another's raises Terminal."""
        ...

    async def grant(self, cell: CellRegistration, collection: str, grants: Sequence[TokenGrant]) -> None:
        """Write entries' points, whatever values they had, and read them back."""
        ...

    async def revoke(self, cell: CellRegistration, collection: str, ids: Sequence[str]) -> None:
        """Remove points; a missing one is success."""
        ...


class CellKeys(Protocol):
    """Which of a cell's two keys signs tokens while it is rotated; tenants by namespace and name."""

    def signing(self, cell: CellRegistration) -> CellRegistration | None:
        """The cell with the key that signs now; None while it is not known how far a rotation has come."""
        ...

    def saw(self, tenant: tuple[str, str], cell: str, key_ids: Sequence[str]) -> None:
        """A tenant's Secrets were read: which key signed the token of each."""
        ...

    def forget(self, tenant: tuple[str, str]) -> None:
        """The tenant is gone."""
        ...


class GatewayKeys(Protocol):
    """The key of the fleet's gateway."""

    def key(self) -> str | None:
        """That which signs now; None while it is not known whether there is one."""
        ...


class KeyProbe(Protocol):
    """Asks one node of a cell whether it accepts a key."""

    async def accepts(self, cell: CellRegistration, url: str, key: str) -> bool | None:
        """True or False as the node answered; None where it gave no answer, or one that says neither."""
        ...


class TokenTrials(Protocol):
    """Tries what must not work: a token on a name that it does not open."""

    async def at_cell(self, cell: CellRegistration, alias: str, token: str) -> Trial:
        """Read one point through the alias with this token."""
        ...

    async def at_gateway(self, url: str, tenant: str, token: str) -> Trial:
        """Search `<namespace>.<name>` at the gateway with this token."""
        ...


class CanaryFindings(Protocol):
    """What the isolation canary saw last."""

    def result(self, tenant: tuple[str, str]) -> CanaryResult | None:
        """Of one tenant, by namespace and name; None where it has not spoken since this process began."""
        ...


class RoomProbe(Protocol):
    """Finds out whether a cell that was out of disk or memory has room again."""

    async def try_room(self, cell: CellRegistration, identity: CellIdentity) -> bool | None:
        """True where a write was taken, False where the cell says that it is full, None where neither is known.

        Nothing is written to a cell that says it is another than `identity`.
        """
        ...


class CellRooms(Protocol):
    """Cells that are out of disk or memory, held as a whole."""

    async def holds(self) -> Mapping[str, CellHold]:
        """Every held cell by name; raises where it is not known."""
        ...

    def full(self, cell: str, said: str) -> None:
        """A cell was met that has no room, with what it said; while it is held this changes nothing."""
        ...


class TokenSigner(Protocol):
    """Signs scoped tokens with a cell's key."""

    def sign(self, cell: CellRegistration, claims: Mapping[str, Any]) -> str:
        """HS256 JWT; refuses claims without ``access``."""
        ...


class Jobs(Protocol):
    """Worker Jobs in the operator's namespace."""

    async def get(self, name: str) -> JobState | None:
        """The Job's state, or None."""
        ...

    async def create(self, manifest: Mapping[str, Any], secret: Mapping[str, str] | None) -> None:
        """Create once; an existing Job of that name is success. `secret` becomes a Secret owned by the Job."""
        ...

    async def delete(self, name: str) -> None:
        """Delete with its Pods, in the background; a missing one is success."""
        ...

    async def answers(self, name: str) -> tuple[str, ...]:
        """Termination messages of the Job's finished Pods, newest first."""
        ...

    def pod_template(self, name: str) -> Mapping[str, Any] | None:
        """A PodTemplate of the operator's namespace from the cache."""
        ...


class ModelJobs(Jobs, Protocol):
    """Worker Jobs of a model, of which a changed spec may leave one running that nobody waits for."""

    async def owned(self, owner_uid: str) -> tuple[JobState, ...]:
        """Every Job that carries this owner, ended or not; one that is being deleted too, until its Pods are gone."""
        ...

    async def stop(self, name: str, uid: str) -> None:
        """Delete exactly the Job that was seen; it can be read until its Pods are gone. Another uid is left alone."""
        ...


class ReindexJobs(Protocol):
    """ReindexJobs that tenants make."""

    async def create(self, namespace: str, body: Mapping[str, Any]) -> None:
        """Create once; an existing one of that name is success."""
        ...

    async def delete(self, namespace: str, name: str, *, known_uid: str) -> None:
        """Delete the one whose uid, or whose owner's, this is; a missing one, or another of that name, is success."""
        ...


class Artifacts(Protocol):
    """The artifact store."""

    async def read(self, uri: str, *, limit: int = 4_194_304) -> bytes | None:
        """The bytes at a URI, or None where nothing is there."""
        ...


class StateMaps(Protocol):
    """ConfigMaps that keep what must survive a lost status."""

    async def read(self, name: str) -> dict[str, str] | None:
        """The data, or None."""
        ...

    async def write(self, name: str, data: Mapping[str, str]) -> None:
        """Create or replace the data."""
        ...


class EventRecorder(Protocol):
    """Kubernetes events, from a closed list, on transitions only."""

    def record(self, reference: Mapping[str, str], reason: str, message: str, *, warning: bool = False) -> None:
        """Queue an event; never blocks."""
        ...
