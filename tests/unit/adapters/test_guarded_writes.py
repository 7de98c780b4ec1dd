"""What was read is what is written or deleted: an object that somebody replaced in between is left alone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import pytest

from searchops.adapters.kube import KubeReindexJobs
from searchops.adapters.kube_api import AlreadyExists, KubeApi
from searchops.adapters.kube_secrets import KubeAccessSecrets
from searchops.runtime.errors import Conflict, Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SECRET = "/api/v1/namespaces/shop/secrets/storefront"
JOB = "/apis/searchops.dev/v1alpha1/namespaces/shop/reindexjobs/acme-1"
OWNER = "searchops.dev/owner-uid"


class Server:
    """Objects by path, with the API server's preconditions; `between` runs after each read of one."""

    def __init__(self, **objects: dict[str, Any]) -> None:
        self.objects = objects
        self.between: Callable[[], None] = lambda: None

    async def get(self, path: str) -> dict[str, Any] | None:
        found = copy.deepcopy(self.objects.get(path))
        self.between()
        return found

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        name = f"{path}/{body['metadata']['name']}"
        if name in self.objects:
            raise AlreadyExists(name)
        self.objects[name] = copy.deepcopy({**body, "metadata": {**body["metadata"], "uid": "new"}})
        return self.objects[name]

    async def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        held = self.objects[path]
        if body["metadata"]["resourceVersion"] != held["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified")
        held["data"] |= body["data"]
        return held

    async def delete(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        wanted = (body or {}).get("preconditions", {})
        held = self.objects.get(path, {"metadata": {}})["metadata"]
        if any(held.get(key) != value for key, value in wanted.items()):
            raise Conflict("the precondition does not hold")
        self.objects.pop(path, None)

    def replace(self, path: str, **metadata: Any) -> Callable[[], None]:
        """Somebody else's deletion and creation of the same name."""

        def act() -> None:
            before = self.objects[path]
            self.objects[path] = {**before, "metadata": {**before["metadata"], **metadata}}

        return act


def held(kind: str, uid: str, version: str = "7", owner: str = "u-1") -> dict[str, Any]:
    metadata = {"name": "x", "uid": uid, "resourceVersion": version, "labels": {OWNER: owner}}
    return {"type": kind, "metadata": metadata, "data": {"token": "b2xk"}}


def secrets(server: Server) -> KubeAccessSecrets:
    return KubeAccessSecrets(cast("KubeApi", server))


async def write(server: Server) -> None:
    await secrets(server).write("shop", "storefront", owner={"uid": "u-1"}, data={"token": "new"}, annotations={})


async def test_a_secret_of_ours_is_written_over_and_removed() -> None:
    server = Server(**{SECRET: held("searchops.dev/access", "s-1")})
    await write(server)
    assert server.objects[SECRET]["data"] == {"token": "bmV3"}
    await secrets(server).delete("shop", "storefront", owner_uid="u-1")
    assert server.objects == {}
    await secrets(server).delete("shop", "storefront", owner_uid="u-1")


@pytest.mark.parametrize("changed", [{"uid": "s-2", "resourceVersion": "9"}, {"resourceVersion": "8"}])
async def test_a_secret_that_was_replaced_between_read_and_write_is_left_alone(changed: dict[str, str]) -> None:
    server = Server(**{SECRET: held("searchops.dev/access", "s-1")})
    server.between = server.replace(SECRET, **changed, labels={OWNER: "of-another"})
    with pytest.raises(Conflict):
        await write(server)
    assert server.objects[SECRET]["data"] == {"token": "b2xk"}
    server = Server(**{SECRET: held("searchops.dev/access", "s-1")})
    server.between = server.replace(SECRET, **changed, labels={OWNER: "of-another"})
    with pytest.raises(Conflict):
        await secrets(server).delete("shop", "storefront", owner_uid="u-1")
    assert server.objects[SECRET]["metadata"]["labels"] == {OWNER: "of-another"}


async def test_a_secret_of_another_type_or_owner_is_never_touched() -> None:
    for other in (held("Opaque", "s-1"), held("searchops.dev/access", "s-1", owner="u-2")):
        server = Server(**{SECRET: copy.deepcopy(other)})
        with pytest.raises(Terminal, match="SecretConflict"):
            await write(server)
        await secrets(server).delete("shop", "storefront", owner_uid="u-1")
        assert server.objects == {SECRET: other}
        state = await secrets(server).read("shop", "storefront")
        assert state is not None
        assert state.token == ("" if other["type"] == "Opaque" else "old")


@pytest.mark.parametrize(("known", "left"), [("j-1", 0), ("u-1", 0), ("j-0", 1)])
async def test_only_the_reindex_job_that_is_known_is_deleted(known: str, left: int) -> None:
    server = Server(**{JOB: held("", "j-1")})
    await KubeReindexJobs(cast("KubeApi", server)).delete("shop", "acme-1", known_uid=known)
    assert len(server.objects) == left


async def test_a_reindex_job_that_took_the_name_meanwhile_is_left_alone() -> None:
    server = Server(**{JOB: held("", "j-1")})
    server.between = server.replace(JOB, uid="j-2")
    with pytest.raises(Conflict):
        await KubeReindexJobs(cast("KubeApi", server)).delete("shop", "acme-1", known_uid="u-1")
    assert server.objects[JOB]["metadata"]["uid"] == "j-2"
