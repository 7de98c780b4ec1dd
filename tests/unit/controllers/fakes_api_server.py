"""An API server in memory: objects with resourceVersions, Secrets, ReindexJobs, and a watch that feeds caches."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from searchops.api.observed import AccessSecretState
from searchops.planning.names import ACCESS_SECRET_TYPE, OWNER_UID_LABEL
from searchops.runtime.errors import Conflict, Terminal, Transient
from searchops.runtime.key import Key
from unit.runtime.objects import apply_merge_patch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.runtime.cache import ObjectCache
    from unit.controllers.fakes_faults import Faults


class FakeApiServer:
    """Objects of our kinds by plural and key; `writes` lists what was written of them."""

    def __init__(self, faults: Faults) -> None:
        self.objects: dict[tuple[str, Key], dict[str, Any]] = {}
        self.writes: list[str] = []
        self._faults = faults
        self.namespace_uids: dict[str, str] = {}
        self._version = 100
        self._caches: dict[str, ObjectCache[Any]] = {}
        self._events: list[tuple[str, str, dict[str, Any]]] = []

    def serve(self, cache: ObjectCache[Any]) -> None:
        """Feed a cache by `deliver`."""
        self._caches[cache.plural] = cache

    def put(self, plural: str, raw: Mapping[str, Any]) -> None:
        """What a person applies: a spec change raises the generation."""
        metadata = {"namespace": "", **raw["metadata"]}
        key = Key(metadata["namespace"], metadata["name"])
        before = self.objects.get((plural, key))
        made = copy.deepcopy({**raw, "metadata": metadata})
        if before is not None:
            made["metadata"] = {**before["metadata"], **metadata}
            made.setdefault("status", before.get("status", {}))
        changed = before is None or before.get("spec") != made.get("spec")
        generation = (before or {}).get("metadata", {}).get("generation", 0)
        made["metadata"]["generation"] = generation + 1 if changed else generation
        self._store(plural, key, made)

    def delete(self, plural: str, key: Key) -> None:
        """A DELETE: a deletionTimestamp while finalizers hold, gone otherwise."""
        found = self.objects.get((plural, key))
        if found is None:
            return
        if found["metadata"].get("finalizers"):
            self._store(plural, key, apply_merge_patch(found, {"metadata": {"deletionTimestamp": STAMP}}))
        else:
            self._gone(plural, key)

    def deliver(self) -> None:
        """The watch catches up."""
        events, self._events = self._events, []
        for plural, kind, raw in events:
            if plural in self._caches:
                self._caches[plural].apply(kind, raw)

    def _store(self, plural: str, key: Key, raw: dict[str, Any]) -> str:
        self._version += 1
        raw["metadata"]["resourceVersion"] = str(self._version)
        self.objects[plural, key] = raw
        self._events.append((plural, "MODIFIED", copy.deepcopy(raw)))
        return str(self._version)

    def _gone(self, plural: str, key: Key) -> None:
        raw = self.objects.pop((plural, key))
        self._version += 1
        raw["metadata"]["resourceVersion"] = str(self._version)
        self._events.append((plural, "DELETED", raw))

    # -- ObjectWriter ------------------------------------------------------------------------------------------

    async def patch_status(self, plural: str, namespace: str, name: str, body: Mapping[str, Any]) -> str:
        return self._faults.through("patch status", lambda: self._patch("status", plural, Key(namespace, name), body))

    async def patch_metadata(self, plural: str, namespace: str, name: str, body: Mapping[str, Any]) -> str:
        return self._faults.through(
            "patch metadata", lambda: self._patch("metadata", plural, Key(namespace, name), body)
        )

    def _patch(self, part: str, plural: str, key: Key, body: Mapping[str, Any]) -> str:
        raw = self.objects.get((plural, key))
        if raw is None:
            raise Conflict(f"{key} is gone")
        if body["metadata"]["resourceVersion"] != raw["metadata"]["resourceVersion"]:
            raise Conflict(f"{key} is at {raw['metadata']['resourceVersion']}")
        changed = apply_merge_patch(raw, body)
        if changed == raw:
            return str(raw["metadata"]["resourceVersion"])
        self.writes.append(f"{plural}/{part}")
        version = self._store(plural, key, changed)
        if changed["metadata"].get("deletionTimestamp") and not changed["metadata"].get("finalizers"):
            self._gone(plural, key)
        return version

    # -- ObjectReader ------------------------------------------------------------------------------------------

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any] | None:
        return self._faults.through("get", lambda: copy.deepcopy(self.objects.get((plural, Key(namespace, name)))))

    async def cluster_uid(self) -> str:
        return self._faults.through("cluster uid", lambda: "cluster-1")

    async def namespace_uid(self, namespace: str) -> str:
        found = self.namespace_uids.get(namespace, f"uid-of-{namespace}")
        return self._faults.through("namespace uid", lambda: found)


STAMP = "2026-11-24T12:00:00Z"


class FakeReindexJobs:
    """ReindexJobs on the API server; `created` and `deleted` name what really came and went."""

    def __init__(self, api: FakeApiServer, faults: Faults) -> None:
        self.created: list[str] = []
        self.deleted: list[str] = []
        self._api = api
        self._faults = faults

    async def create(self, namespace: str, body: Mapping[str, Any]) -> None:
        def act() -> None:
            key = Key(namespace, body["metadata"]["name"])
            if ("reindexjobs", key) not in self._api.objects:
                self.created.append(key.name)
                metadata = {**body["metadata"], "uid": f"uid-{key.name}-{len(self.created)}"}
                self._api.put("reindexjobs", {**body, "metadata": metadata, "status": {}})

        self._faults.through("create ReindexJob", act)

    async def delete(self, namespace: str, name: str, *, known_uid: str) -> None:
        def act() -> None:
            metadata = self._api.objects.get(("reindexjobs", Key(namespace, name)), {}).get("metadata", {})
            if known_uid in (metadata.get("uid"), metadata.get("labels", {}).get(OWNER_UID_LABEL)):
                self._api.delete("reindexjobs", Key(namespace, name))
                self.deleted.append(name)

        self._faults.through("delete ReindexJob", act)


class FakeSecrets:
    """Secrets by namespace and name; `created` counts real creations."""

    def __init__(self, faults: Faults) -> None:
        self.secrets: dict[Key, AccessSecretState] = {}
        self.data: dict[Key, dict[str, str]] = {}
        self.created: list[str] = []
        self._faults = faults

    async def read(self, namespace: str, name: str) -> AccessSecretState | None:
        return self._faults.through("read Secret", lambda: self.secrets.get(Key(namespace, name)))

    async def write(
        self,
        namespace: str,
        name: str,
        *,
        owner: Mapping[str, str],
        data: Mapping[str, str],
        annotations: Mapping[str, str],
    ) -> AccessSecretState:
        def act() -> AccessSecretState:
            key = Key(namespace, name)
            there = self.secrets.get(key)
            tenant = annotations["searchops.dev/tenant"]
            if there is not None and not there.held_by(ACCESS_SECRET_TYPE, owner["uid"], tenant):
                raise Terminal("SecretConflict", f"{name} is not ours")
            if there is None:
                self.created.append(name)
            self.data[key] = dict(data)
            self.secrets[key] = AccessSecretState(
                name,
                ACCESS_SECRET_TYPE,
                owner["uid"],
                annotations["searchops.dev/inputs-digest"],
                annotations["searchops.dev/renew-at"],
                data["token"],
                tenant,
                annotations["searchops.dev/token-id"],
                annotations["searchops.dev/key-id"],
                "url" in data,
            )
            return self.secrets[key]

        return self._faults.through("write Secret", act)

    async def delete(self, namespace: str, name: str, *, owner_uid: str) -> None:
        def act() -> None:
            found = self.secrets.get(Key(namespace, name))
            if found is not None and (found.type, found.owner_uid) == (ACCESS_SECRET_TYPE, owner_uid):
                del self.secrets[Key(namespace, name)]
                del self.data[Key(namespace, name)]

        self._faults.through("delete Secret", act)


class FakeSigner:
    """Tokens that say what they were signed for."""

    def sign(self, cell: Any, claims: Mapping[str, Any]) -> str:
        if not claims.get("access"):
            raise Transient("no access in the claims")
        return f"{cell.name}:{claims['subject']}"


class FakeEvents:
    """Events in the order in which they were told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def record(self, reference: Mapping[str, str], reason: str, message: str, *, warning: bool = False) -> None:
        self.told.append((reason, message))
