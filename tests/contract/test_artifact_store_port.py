"""One suite for every store that artifacts may lie in: what workers keep, the operator and other workers read whole."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING

import fsspec
import pytest

from searchops.adapters.artifacts import ArtifactStore
from searchops.runtime.errors import Transient
from searchops_sandbox.s3 import SECRET, s3_server
from searchops_workers.engines.stages import BuildError, BuildStage
from searchops_workers.engines.storage import UriArtifacts, fetch_directory, read_bytes, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGE = 6 * 2**20
"""Bytes; more than the operator reads, and more than one write of a local file."""


@pytest.fixture(scope="module", params=["file", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store's URI."""
    if request.param == "s3":
        with s3_server() as uri:
            yield uri
    elif request.param == "memory":
        yield "memory://contract"
        fsspec.filesystem("memory").rm("/contract", recursive=True)
    else:
        yield f"file://{tmp_path_factory.mktemp('store')}"


@pytest.fixture
def prefix(store: str) -> str:
    """A prefix of one test's own."""
    return f"{store}/{uuid.uuid4().hex[:8]}"


def names(prefix: str) -> list[str]:
    """Everything under a prefix, as the store lists it."""
    system, path = fsspec.core.url_to_fs(prefix, **({"use_listings_cache": False} if prefix.startswith("s3") else {}))
    root = path.strip("/")
    return sorted(item.strip("/").removeprefix(root).strip("/") for item in system.find(path))


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00\xff" * 4096], ids=["empty", "small", "binary"])
async def test_what_a_worker_writes_the_operator_reads(prefix: str, content: bytes) -> None:
    uri = f"{prefix}/results/a job's + answer é.json"
    write_bytes(uri, content)
    assert await ArtifactStore().read(uri) == content
    assert read_bytes(uri) == content


async def test_what_is_absent_is_an_answer(prefix: str) -> None:
    write_bytes(f"{prefix}/results/there.json", b"{}")
    assert await ArtifactStore().read(f"{prefix}/results/not-there.json") is None
    assert await ArtifactStore().read(f"{prefix}/nowhere/not-there.json") is None
    assert UriArtifacts(f"{prefix}/results", f"{prefix}/engines").read("not-there.json") is None
    with pytest.raises(BuildError, match=r"not-there\.json cannot be read: ") as caught:
        read_bytes(f"{prefix}/results/not-there.json")
    assert caught.value.stage == BuildStage.RETRY


async def test_what_came_a_moment_ago_is_seen_where_nothing_was(prefix: str) -> None:
    store = ArtifactStore()
    artifacts = UriArtifacts(f"{prefix}/m/r1", f"{prefix}/engines")
    for content in (b"first", b"second, longer", b"3"):
        before = await store.read(artifacts.uri("probes.json"))
        assert before != content
        artifacts.keep("probes.json", content)
        assert await store.read(artifacts.uri("probes.json")) == content
        assert artifacts.read("probes.json") == content
    assert names(f"{prefix}/m") == ["r1/probes.json"]


async def test_an_object_that_is_too_large_is_not_cut(prefix: str) -> None:
    uri = f"{prefix}/evidence.json"
    write_bytes(uri, b"x" * 11)
    assert await ArtifactStore().read(uri, limit=11) == b"x" * 11
    with pytest.raises(Transient, match="is larger than the 10 bytes that are read"):
        await ArtifactStore().read(uri, limit=10)


def test_a_reader_beside_a_writer_sees_the_old_or_the_new(prefix: str) -> None:
    uri = f"{prefix}/weights.bin"
    write_bytes(uri, b"0" * LARGE)

    def write() -> None:
        for digit in (b"1", b"2", b"3"):
            write_bytes(uri, digit * LARGE)

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[bytes] = []
    while writer.is_alive() or not seen:
        seen.append(read_bytes(uri))
    writer.join()
    assert {(len(content), len(set(content))) for content in seen} == {(LARGE, 1)}
    assert read_bytes(uri) == b"3" * LARGE
    assert names(prefix) == ["weights.bin"]


def test_an_engine_is_found_only_when_it_is_whole(prefix: str, tmp_path: Path) -> None:
    artifacts = UriArtifacts(f"{prefix}/m/r1", f"{prefix}/engines")
    made, into = tmp_path / "made", tmp_path / "into"
    made.mkdir()
    into.mkdir()
    onnx, plan = made / "model.onnx", made / "model.plan"
    onnx.write_bytes(b"graph")
    description = {"files": {"model.onnx": "a", "model.plan": "b"}, "engine": "model.plan", "key": "k"}
    assert artifacts.find_engine("recipe", into) is None
    with pytest.raises(BuildError, match=r"engines/recipe/model\.plan cannot be written: ") as caught:
        artifacts.keep_engine("recipe", description, (onnx, plan))
    assert caught.value.stage == BuildStage.RETRY
    assert names(f"{prefix}/engines") == ["recipe/model.onnx"]
    assert artifacts.find_engine("recipe", into) is None

    plan.write_bytes(b"p" * LARGE)
    artifacts.keep_engine("recipe", description, (onnx, plan))
    assert artifacts.find_engine("recipe", into) == description
    assert {path.name: path.read_bytes() for path in into.iterdir()} == {
        "model.onnx": b"graph",
        "model.plan": b"p" * LARGE,
    }


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"files": 3}'])
def test_a_broken_description_and_a_lost_file_are_no_engine(prefix: str, content: bytes, tmp_path: Path) -> None:
    artifacts = UriArtifacts(f"{prefix}/m/r1", f"{prefix}/engines")
    write_bytes(f"{prefix}/engines/recipe/engine.json", content)
    assert artifacts.find_engine("recipe", tmp_path) is None
    write_bytes(f"{prefix}/engines/recipe/engine.json", b'{"files": {"model.onnx": "a"}}')
    assert artifacts.find_engine("recipe", tmp_path) is None


def test_a_write_that_fails_leaves_what_was_there(prefix: str, tmp_path: Path) -> None:
    artifacts = UriArtifacts(f"{prefix}/m/r1", f"{prefix}/engines")
    artifacts.keep("model.onnx", b"before")
    with pytest.raises(BuildError, match="cannot be written"):
        artifacts.keep("model.onnx", tmp_path / "never-made")
    assert artifacts.read("model.onnx") == b"before"
    assert names(prefix) == ["m/r1/model.onnx"]


def test_a_folder_is_fetched_whole_and_again_when_it_grew(prefix: str, tmp_path: Path) -> None:
    wanted = {"config.json": b"{}", "1_Pooling/config.json": b"[]", "weights/model.safetensors": b"w" * 1000}
    for name, content in wanted.items():
        write_bytes(f"{prefix}/source/{name}", content)
    write_bytes(f"{prefix}/source-of-another/config.json", b"not ours")
    for _ in range(2):
        folder = fetch_directory(f"{prefix}/source", tmp_path / "copy", absent=BuildStage.BAD_CHECKPOINT)
        found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert found == wanted
        wanted["added.txt"] = b"later"
        write_bytes(f"{prefix}/source/added.txt", b"later")


@pytest.mark.parametrize("name", ["nothing", "file.txt"])
def test_no_folder_there_is_the_stage_that_the_caller_names(prefix: str, name: str, tmp_path: Path) -> None:
    write_bytes(f"{prefix}/file.txt", b"x")
    with pytest.raises(BuildError, match="seen no folder there, wanted a directory of files") as caught:
        fetch_directory(f"{prefix}/{name}", tmp_path / "copy", absent=BuildStage.DIGEST_MISMATCH)
    assert caught.value.stage == BuildStage.DIGEST_MISMATCH


def test_what_is_deleted_is_absent(prefix: str) -> None:
    artifacts = UriArtifacts(f"{prefix}/m/r1", f"{prefix}/engines")
    artifacts.keep("anchors.npz", b"a")
    system, path = fsspec.core.url_to_fs(artifacts.uri("anchors.npz"))
    system.rm_file(path)
    assert artifacts.read("anchors.npz") is None
    assert names(prefix) == []


async def test_a_lost_bucket_is_unknown_not_absent(tmp_path: Path) -> None:
    with s3_server() as bucket:
        uri = f"{bucket}-lost/prod/results/job.json"
        with pytest.raises(Transient, match=r"Create the bucket, or correct the URI and the endpoint") as caught:
            await ArtifactStore().read(uri)
        assert uri in str(caught.value)
        assert SECRET not in str(caught.value)
        artifacts = UriArtifacts(f"{bucket}-lost/prod/m/r1", f"{bucket}-lost/prod/engines")
        for attempt in (
            lambda: artifacts.read("manifest.json"),
            lambda: artifacts.find_engine("recipe", tmp_path),
            lambda: artifacts.keep("manifest.json", b"{}"),
            lambda: fetch_directory(f"{bucket}-lost/source", tmp_path / "copy", absent=BuildStage.BAD_CHECKPOINT),
        ):
            with pytest.raises(BuildError, match="Create the bucket") as refused:
                attempt()
            assert refused.value.stage == BuildStage.RETRY
