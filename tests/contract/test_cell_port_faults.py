"""`CellWriter` when the answer is lost, late or refused: every write is read back, and none is repeated blindly.

Only the sandbox's double takes orders to fail.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from contract.wired_scene import OWNER, WiredScene
from searchops.adapters.qdrant import MARKER, QdrantCells
from searchops.api.observed import CellIdentity, CellRegistration, CellState, CollectionDesign, StrictMode
from searchops.runtime.errors import NotReady, ReconcileError, Terminal, Transient
from searchops_sandbox.qdrant.cell import QdrantCell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from contract.wire import Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRICT = StrictMode(1000, 4_000_000, 60_000, 60_000, 256, 100)
IDENTITY = CellIdentity("prod", "eu-1", "uid-of-kube-system")


def design(name: str) -> CollectionDesign:
    return CollectionDesign(name, (("d-one", 4),), ("lex-01234567",), (), 1, 1, STRICT, OWNER)


class Scene(WiredScene):
    async def sees(self) -> CellState:
        return await self.ports.survey(self.cell)


@pytest_asyncio.fixture(loop_scope="module")
async def scene(double: QdrantCell, wire: Wire) -> AsyncIterator[Scene]:
    made = Scene(double, wire)
    yield made
    await made.close()


Write = tuple[str, str, "Callable[[Scene], Awaitable[None]]", "Callable[[Scene], Awaitable[bool]]"]


async def described(scene: Scene) -> Any:
    found = await scene.ports.describe(scene.cell, scene.name)
    assert found is not None
    return found


async def created(scene: Scene) -> bool:
    return scene.name in (await scene.sees()).collections


async def indexed(scene: Scene) -> bool:
    return bool((await described(scene)).indexes.get("colour") == "keyword")


async def pointed(scene: Scene) -> bool:
    return (await scene.sees()).aliases.get(scene.alias) == f"{scene.alias}@g2"


async def patched(scene: Scene) -> bool:
    found = await described(scene)
    return bool(found.metadata.get("searchops.dev/binding") == "{}" and found.strict.max_points == 7)


async def added(scene: Scene) -> bool:
    return "d-two" in (await described(scene)).dense


async def claimed(scene: Scene) -> bool:
    return (await scene.sees()).identity == IDENTITY


async def point(scene: Scene) -> None:
    await scene.ports.point_alias(scene.cell, scene.alias, f"{scene.alias}@g2")


async def patch(scene: Scene) -> None:
    await scene.ports.patch_metadata(
        scene.cell, scene.name, {"searchops.dev/binding": "{}"}, replace(STRICT, max_points=7)
    )


async def negated(check: Awaitable[bool]) -> bool:
    return not await check


WRITES: dict[str, Write] = {
    "claim": ("PUT", f"/collections/{MARKER}", lambda s: s.ports.claim(s.cell, IDENTITY), claimed),
    "create": ("PUT", "/collections/{name}", lambda s: s.ports.create_collection(s.cell, design(s.name)), created),
    "index": (
        "PUT",
        "/collections/{name}/index",
        lambda s: s.ports.create_index(s.cell, s.name, "colour", "keyword"),
        indexed,
    ),
    "alias": ("POST", "/collections/aliases", point, pointed),
    "unalias": (
        "POST",
        "/collections/aliases",
        lambda s: s.ports.remove_alias(s.cell, f"{s.alias}@a"),
        lambda s: negated(has_side(s)),
    ),
    "patch": ("PATCH", "/collections/{name}", patch, patched),
    "add": (
        "PUT",
        "/collections/{name}/vectors/d-two",
        lambda s: s.ports.add_vector(s.cell, s.name, "d-two", 8),
        added,
    ),
    "remove": (
        "DELETE",
        "/collections/{name}/vectors/d-one",
        lambda s: s.ports.remove_vector(s.cell, s.name, "d-one"),
        lambda s: negated(has_first(s)),
    ),
    "drop": (
        "DELETE",
        "/collections/{name}",
        lambda s: s.ports.drop_collection(s.cell, s.name),
        lambda s: negated(created(s)),
    ),
}


async def has_side(scene: Scene) -> bool:
    return f"{scene.alias}@a" in (await scene.sees()).aliases


async def has_first(scene: Scene) -> bool:
    return "d-one" in (await described(scene)).dense


async def prepare(scene: Scene, kind: str) -> None:
    """A tenant on generation 1, with its side and its alias, as far as the write needs one."""
    if kind in {"claim", "create"}:
        return
    for name in (scene.name, f"{scene.alias}@g2"):
        await scene.ports.create_collection(scene.cell, design(name))
    for alias in (scene.alias, f"{scene.alias}@a"):
        await scene.ports.point_alias(scene.cell, alias, scene.name)


LOST: list[tuple[str, str, object]] = [
    *((kind, "drop", when) for kind in WRITES for when in ("after-effect", "before-effect")),
    *((kind, "latency", 1.4) for kind in ("create", "alias", "patch")),
]


@pytest.mark.parametrize(("kind", "fault", "value"), LOST)
async def test_a_lost_answer_is_read_back_and_the_write_is_sent_once(
    scene: Scene, kind: str, fault: str, value: object
) -> None:
    method, path, write, done = WRITES[kind]
    path = path.format(name=scene.name)
    await prepare(scene, kind)
    assert not await done(scene)
    scene.wire.requests.clear()
    await scene.double.inject({"method": method, "path": path, fault: value})
    if value == "after-effect":
        await write(scene)
    else:
        with pytest.raises(Transient, match=r"gave no answer to .*; its effect is read back") as caught:
            await write(scene)
        assert caught.value.retry_after is None
        assert scene.double.api_key not in str(caught.value)
    assert scene.wire.requests == [(method, path)], "one request, whatever became of it"
    if fault == "latency":
        for _ in range(40):  # the server goes on with what it was asked after the caller has given up
            if await done(scene):
                break
            await asyncio.sleep(0.1)
    if value != "before-effect":
        assert await done(scene)
    await write(scene)
    assert await done(scene), "the next pass comes to the same end"


@pytest.mark.parametrize("kind", WRITES)
async def test_a_rate_limit_names_when_to_come_back_and_changes_nothing(scene: Scene, kind: str) -> None:
    method, path, write, done = WRITES[kind]
    await prepare(scene, kind)
    scene.wire.requests.clear()
    path = path.format(name=scene.name)
    await scene.double.inject({"method": method, "path": path, "status": 429, "retry_after": 7})
    with pytest.raises(Transient) as caught:
        await write(scene)
    assert caught.value.retry_after == 7
    assert (len(scene.wire.requests), await done(scene)) == (1, False)
    await write(scene)
    assert await done(scene)


@pytest.mark.parametrize("kind", WRITES)
async def test_a_full_cell_is_a_wait_that_says_what_to_do(scene: Scene, kind: str) -> None:
    method, path, write, done = WRITES[kind]
    await prepare(scene, kind)
    await scene.double.inject({"method": method, "path": path.format(name=scene.name), "status": 507})
    with pytest.raises(NotReady, match=r"answered 507 to .*Free room on the cell or add another") as caught:
        await write(scene)
    assert (caught.value.reason, await done(scene)) == ("CellFull", False)


async def test_an_error_after_the_effect_is_no_failure(scene: Scene) -> None:
    """Consensus that ends late answers 500 and succeeds: what a read shows counts."""
    await prepare(scene, "index")
    await scene.ports.create_index(scene.cell, scene.name, "colour", "keyword")
    path = f"/collections/{scene.name}/index"
    await scene.double.inject({"method": "PUT", "path": path, "status": 500, "message": "waiting for consensus"})
    await scene.ports.create_index(scene.cell, scene.name, "colour", "keyword")
    await scene.double.inject({"method": "PUT", "path": path, "status": 500, "message": "waiting for consensus"})
    with pytest.raises(Transient, match=r"answered 500 to index price .*consensus"):
        await scene.ports.create_index(scene.cell, scene.name, "price", "float")


async def test_two_that_create_at_once_both_succeed_and_a_stranger_does_not(scene: Scene) -> None:
    wanted = design(scene.name)
    await asyncio.gather(*(scene.ports.create_collection(scene.cell, wanted) for _ in range(4)))
    stranger = replace(wanted, metadata=(("searchops.dev/fleet", "prod"), ("searchops.dev/uid", "other")))
    with pytest.raises(Terminal, match="Conflict"):
        await scene.ports.create_collection(scene.cell, stranger)


async def test_a_create_that_timed_out_over_a_strangers_collection_is_not_ours(scene: Scene) -> None:
    stranger = replace(design(scene.name), metadata=(("searchops.dev/fleet", "prod"), ("searchops.dev/uid", "other")))
    await scene.ports.create_collection(scene.cell, stranger)
    await scene.double.inject({"method": "PUT", "path": f"/collections/{scene.name}", "drop": "before-effect"})
    with pytest.raises(Transient):
        await scene.ports.create_collection(scene.cell, design(scene.name))
    with pytest.raises(Terminal, match="Conflict"):
        await scene.ports.create_collection(scene.cell, design(scene.name))


async def test_an_alias_that_did_not_move_is_not_believed(scene: Scene) -> None:
    """The server answered 200 and the read shows the old target: another writer, or a node that lags."""
    await prepare(scene, "alias")
    await scene.double.inject({"method": "GET", "path": "/collections/.*/aliases", "status": 503})
    with pytest.raises(Transient, match="answered 503 to read aliases of"):
        await point(scene)
    assert await pointed(scene), "moved, but unknown until it was read"
    await point(scene)


async def test_a_cell_that_is_down_is_an_answer_and_a_write_is_unknown(tmp_path: Path) -> None:
    cell = QdrantCell("down", folder=tmp_path, api_key="cell-port-faults-key-of-32-characters!")
    await cell.start()
    ticks = itertools.count(0, 10)
    ports = QdrantCells(timeout=1.0, now=lambda: float(next(ticks)))
    registration = CellRegistration("us-1", {}, (cell.rest_url,), None, 1000, api_key=cell.api_key)
    try:
        assert (await ports.survey(registration)).reachable
        await ports.create_collection(registration, design("prod.shop.kept@g1"))
        await cell.kill()
        survey = await ports.survey(registration)
        assert (survey.reachable, survey.collections) == (False, frozenset())
        assert "cell us-1 gave no answer to survey" in survey.error
        probe = await ports.probe_search(registration, "prod.shop.kept", "lex-01234567", "a-token-that-is-secret")
        assert not probe.ok
        assert "a-token-that-is-secret" not in probe.error
        for kind in ("create", "drop"):
            with pytest.raises(Transient, match="us-1 gave no answer"):
                await (
                    ports.create_collection(registration, design("prod.shop.kept@g1"))
                    if kind == "create"
                    else ports.drop_collection(registration, "prod.shop.kept@g1")
                )
        with pytest.raises(Transient):
            await ports.describe(registration, "prod.shop.kept@g1")
        await cell.start()
        assert "prod.shop.kept@g1" in (await ports.survey(registration)).collections
    finally:
        await ports.close()
        await cell.stop()


async def test_a_survey_is_shared_for_a_second_and_shows_every_write_since(scene: Scene) -> None:
    ports = QdrantCells(now=lambda: 0.0)
    direct = replace(scene.cell, urls=(scene.double.rest_url,))
    try:
        first = await ports.survey(direct)
        assert await ports.survey(direct) is first
        await ports.create_collection(direct, design(scene.name))
        assert scene.name in (await ports.survey(direct)).collections
        await scene.double.inject({"method": "GET", "path": "/aliases", "latency": 0.8})
        running = asyncio.create_task(ports.survey(replace(direct, labels={"changed": "so that it is read again"})))
        await asyncio.sleep(0.3)
        await ports.create_collection(direct, design(f"{scene.alias}@g2"))
        assert f"{scene.alias}@g2" in (await running).collections, "it was made while the survey was read"
        changed = replace(direct, labels={"changed": "so that it is read again"})
        assert f"{scene.alias}@g2" in (await ports.survey(changed)).collections
    finally:
        await ports.close()


async def test_no_error_of_any_kind_carries_the_key(scene: Scene) -> None:
    said: list[str] = [repr(scene.cell), str(scene.cell), repr(scene.ports)]
    for status in (400, 401, 403, 404, 409, 422, 429, 500, 503, 507):
        await scene.double.inject({"method": "PUT", "path": "/collections/.*", "status": status, "message": "no"})
        try:
            await scene.ports.create_collection(scene.cell, design(scene.name))
        except ReconcileError as error:
            said += [str(error), repr(error), repr(error.__cause__), str(error.__cause__)]
        await scene.double.inject({"method": "GET", "path": "/collections", "status": status, "message": "no"})
        said.append(repr(await scene.sees()))
        await scene.double.clear_faults()
    assert len(said) > 30
    assert all(scene.double.api_key not in line for line in said)
