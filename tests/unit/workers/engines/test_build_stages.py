from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from searchops.api.tasks import FINAL_EXIT_CODES, BuildResult
from searchops_sandbox.tiny_checkpoint import write_tiny_checkpoint
from searchops_workers.digests import directory_digest
from searchops_workers.encoders.onnx_runtime import OnnxEncoder
from searchops_workers.encoders.reference import ReferenceEncoder
from searchops_workers.engines import commands, export
from searchops_workers.engines.anchors import read_anchors
from searchops_workers.engines.build import BuildRequest, Founder, build
from searchops_workers.engines.export import export_onnx
from searchops_workers.engines.manifest import read_manifest
from searchops_workers.engines.onnxruntime import OnnxRuntimeBackend
from searchops_workers.engines.repository import model_names
from searchops_workers.engines.stages import BuildError, BuildStage
from searchops_workers.engines.storage import UriArtifacts
from searchops_workers.engines.task import catalogue_uri

if TYPE_CHECKING:
    from searchops_workers.engines.backend import EngineRequest
    from searchops_workers.engines.checkpoint import Checkpoint
    from searchops_workers.engines.export import GraphPrecision


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(autouse=True)
def _exported_once(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal checkpoints give equal bytes (`test_onnx_export`), so each is exported once; what fails, each time."""

    def once(checkpoint: Checkpoint, precision: GraphPrecision, target: Path) -> Path:
        kept = graphs / f"{directory_digest(checkpoint.folder).removeprefix('sha256:')}-{precision}"
        if not kept.exists():
            shutil.copyfile(export_onnx(checkpoint, precision, target), kept)
        shutil.copyfile(kept, target)
        return target

    monkeypatch.setattr(export, "export_onnx", once)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("source") / "checkpoint")


def _request(folder: Path, tmp_path: Path, **changes: Any) -> BuildRequest:
    request = BuildRequest(
        revision="shop-r1-aaaaaaaa",
        checkpoint=folder,
        expected_digest=directory_digest(folder),
        backend="Auto",
        precision="Auto",
        max_batch=8,
        buckets=(8, 16, 64),
        accelerator="cpu",
        work=tmp_path / "work",
        repositories=(tmp_path / "pool" / "repository",),
        queries=("m8 bolt", "talvitakki"),
        documents=("stainless bolt m8 din 933",),
    )
    request.work.mkdir(exist_ok=True)
    return replace(request, **changes)


def _artifacts(tmp_path: Path, revision: str = "shop-r1-aaaaaaaa") -> UriArtifacts:
    return UriArtifacts(f"file://{tmp_path}/artifacts/{revision}", f"file://{tmp_path}/engines")


class _Compiler:
    """Stands for TensorRT: a GPU that exists or not, a build that works from a given precision on."""

    name = "TensorRT"

    def __init__(self, *, refuses: tuple[str, ...] = (), gpu: bool = True) -> None:
        self._refuses = refuses
        self._gpu = gpu
        self.built: list[str] = []

    def preflight(self) -> str:
        if not self._gpu:
            raise BuildError(BuildStage.NO_GPU, "seen no NVIDIA driver")
        return "NVIDIA H100 (sm90)"

    def runtimes(self) -> dict[str, str]:
        return {"tensorrt": "11.4.0"}

    def build(self, request: EngineRequest) -> Path:
        precision = request.target.parent.name.rsplit("-", 1)[-1]
        if precision in self._refuses:
            raise BuildError(BuildStage.PARSE, f"cannot parse {precision}")
        self.built.append(precision)
        request.target.write_bytes(request.onnx.read_bytes())
        return request.target

    def runner(self, engine: Path) -> Any:
        return OnnxRuntimeBackend().runner(engine)


def _build(request: BuildRequest, tmp_path: Path, compiler: _Compiler | None = None) -> Any:
    revision = request.revision
    return build(request, _artifacts(tmp_path, revision), lambda line: None, tensorrt=compiler or _Compiler(gpu=False))


def test_auto_on_a_cpu_pool_is_onnx_runtime_in_fp32_and_says_why(checkpoint: Path, tmp_path: Path) -> None:
    outcome = _build(_request(checkpoint, tmp_path), tmp_path)
    manifest = outcome.manifest
    assert (manifest.backend, manifest.precision) == ("ONNXRuntime", "FP32")
    assert manifest.backend_reason == "Auto: the pool's accelerator is cpu, so no TensorRT plan can run"
    assert "FP16 brings nothing on a CPU" in manifest.precision_reason
    assert outcome.published == model_names("shop-r1-aaaaaaaa")
    folder = tmp_path / "artifacts" / "shop-r1-aaaaaaaa"
    assert read_manifest(folder / "manifest.json").digest == manifest.digest
    assert manifest.digest in (tmp_path / "pool/repository/shop-r1-aaaaaaaa/config.pbtxt").read_text()
    probes = json.loads((folder / "probes.json").read_text())
    served = OnnxEncoder.open(folder).encode_now(probes["texts"])
    assert np.einsum("ij,ij->i", served, np.array(probes["vectors"])).min() > 0.9999
    assert np.allclose(ReferenceEncoder(checkpoint).encode_now(probes["texts"]), probes["vectors"], atol=1e-5)


def test_the_same_build_again_reuses_the_engine_and_publishes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    first = _build(_request(checkpoint, tmp_path), tmp_path)
    again = _build(_request(checkpoint, tmp_path), tmp_path)
    assert (first.reused, again.reused, again.published) == (False, True, ())
    assert again.manifest == first.manifest


def test_the_reference_of_a_checkpoint_is_encoded_once_and_again_where_it_is_damaged(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _build(_request(checkpoint, tmp_path), tmp_path)
    calls: list[int] = []
    encode = ReferenceEncoder.encode_raw

    def counted(self: ReferenceEncoder, texts: Any) -> Any:
        calls.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(ReferenceEncoder, "encode_raw", counted)
    again = _build(_request(checkpoint, tmp_path, revision="shop-r2-bbbbbbbb"), tmp_path)
    assert (calls, again.manifest.accuracy) == ([], first.manifest.accuracy)
    for kept in (tmp_path / "engines").rglob("reference.npy"):
        kept.write_bytes(kept.read_bytes()[:-4] + b"\0\0\0\0")
    _build(_request(checkpoint, tmp_path), tmp_path)
    assert len(calls) == 1
    other = _build(_request(checkpoint, tmp_path, queries=("another text",)), tmp_path)
    assert (len(calls), other.reused) == (2, True)


def test_another_profile_is_another_engine_and_a_damaged_one_is_built_again(checkpoint: Path, tmp_path: Path) -> None:
    first = _build(_request(checkpoint, tmp_path), tmp_path)
    other = _build(_request(checkpoint, tmp_path, max_batch=4, revision="shop-r2-bbbbbbbb"), tmp_path)
    assert not other.reused
    assert other.manifest.engine_key != first.manifest.engine_key
    for kept in (tmp_path / "engines").rglob("model.onnx"):
        kept.write_bytes(b"damaged")
    assert not _build(_request(checkpoint, tmp_path), tmp_path).reused


def test_a_founders_anchors_tell_its_space_from_others(checkpoint: Path, tmp_path: Path) -> None:
    _build(_request(checkpoint, tmp_path), tmp_path)
    anchors = read_anchors((tmp_path / "artifacts/shop-r1-aaaaaaaa/anchors.npz").read_bytes(), source="r1")
    founders = (Founder("5pace1", anchors),)
    changes: dict[str, Any] = {"founders": founders, "revision": "shop-r2-bbbbbbbb", "precision": "FP16"}
    same = _build(_request(checkpoint, tmp_path, **changes), tmp_path)
    assert same.anchor_cosine["5pace1"] >= 0.999
    other = write_tiny_checkpoint(tmp_path / "other", pooling="cls")
    changed = _build(_request(other, tmp_path, founders=founders, revision="shop-r3-cccccccc"), tmp_path)
    assert changed.anchor_cosine["5pace1"] < 0.99
    smaller = write_tiny_checkpoint(tmp_path / "smaller", truncate_dim=8)
    cut = _build(_request(smaller, tmp_path, founders=founders, revision="shop-r4-dddddddd"), tmp_path)
    assert cut.anchor_cosine["5pace1"] == 0.0


def test_auto_takes_the_first_precision_that_compiles_and_records_the_others(checkpoint: Path, tmp_path: Path) -> None:
    compiler = _Compiler(refuses=("FP16",))
    manifest = _build(_request(checkpoint, tmp_path, accelerator="NVIDIA-H100"), tmp_path, compiler).manifest
    assert (manifest.backend, manifest.precision, compiler.built) == ("TensorRT", "Mixed", ["Mixed"])
    assert "not FP16 (PARSE: cannot parse FP16)" in manifest.precision_reason
    assert manifest.hardware == "NVIDIA H100 (sm90)"
    encoder = tmp_path / "pool/repository/shop-r1-aaaaaaaa-enc"
    assert 'platform: "tensorrt_plan"' in (encoder / "config.pbtxt").read_text()
    assert (encoder / "1" / "model.plan").exists()
    assert (tmp_path / "artifacts/shop-r1-aaaaaaaa/model.onnx").exists(), "the fallback is kept beside the plan"


@pytest.mark.parametrize(
    "compiler", [_Compiler(gpu=False), _Compiler(refuses=("FP16", "Mixed", "BF16", "FP32"))], ids=["no-gpu", "no-parse"]
)
def test_auto_falls_back_to_onnx_runtime_and_says_so(checkpoint: Path, tmp_path: Path, compiler: _Compiler) -> None:
    manifest = _build(_request(checkpoint, tmp_path, accelerator="NVIDIA-H100"), tmp_path, compiler).manifest
    assert (manifest.backend, manifest.precision) == ("ONNXRuntime", "FP16")
    assert manifest.backend_reason.startswith("Auto: no TensorRT plan (")


@pytest.mark.parametrize(
    ("changes", "stage", "message"),
    [
        ({"expected_digest": "sha256:" + "0" * 64}, BuildStage.DIGEST_MISMATCH, "source.digest: seen sha256:"),
        ({"checkpoint": Path("/nonexistent")}, BuildStage.BAD_CHECKPOINT, "check source.uri"),
        ({"backend": "TensorRT"}, BuildStage.NO_GPU, "seen TensorRT for a pool whose accelerator is cpu"),
        ({"backend": "TensorRT", "accelerator": "NVIDIA-H100"}, BuildStage.NO_GPU, "seen no NVIDIA driver"),
        ({"precision": "BF16"}, BuildStage.PARSE, "try another engine.precision"),
    ],
)
def test_what_stops_a_build_is_its_stage_and_nothing_is_published(
    checkpoint: Path, tmp_path: Path, changes: dict[str, Any], stage: BuildStage, message: str
) -> None:
    with pytest.raises(BuildError) as caught:
        _build(_request(checkpoint, tmp_path, **changes), tmp_path)
    assert caught.value.stage is stage
    assert message in str(caught.value)
    assert not (tmp_path / "pool" / "repository").exists()


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "checkpoint", nan=True)
    with pytest.raises(BuildError, match="under FP32 torch gives values that are not finite") as caught:
        _build(_request(folder, tmp_path), tmp_path)
    assert caught.value.stage is BuildStage.ACCURACY


def _task(folder: Path, tmp_path: Path, **changes: Any) -> str:
    task: dict[str, Any] = {
        "kind": "build",
        "model": "shop",
        "revision": "shop-r1-aaaaaaaa",
        "number": 1,
        "source": {"uri": f"file://{folder}", "digest": directory_digest(folder)},
        "engine": {"backend": "Auto", "precision": "Auto", "maxBatch": 8, "buckets": [8, 16, 64]},
        "repositories": [f"{tmp_path}/pool/repository"],
        "artifacts": f"file://{tmp_path}/artifacts/models/shop/shop-r1-aaaaaaaa",
        "resultUri": f"file://{tmp_path}/results/build.json",
    }
    return json.dumps({**task, **changes})


def test_the_jobs_answer_is_written_twice(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHOPS_TERMINATION_LOG", str(tmp_path / "termination"))
    assert commands.run_build(_task(checkpoint, tmp_path)) == 0
    content = (tmp_path / "results" / "build.json").read_bytes()
    result = BuildResult.model_validate_json(content)
    assert (result.exit_code, result.dimension, result.max_tokens) == (0, 32, 48)
    assert (tmp_path / "termination").read_bytes() == content
    assert (tmp_path / "artifacts" / "engines").is_dir(), "engines are shared by models"


def test_a_final_failure_is_an_answer_and_a_passing_one_is_not(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCHOPS_TERMINATION_LOG", str(tmp_path / "termination"))
    wrong = {"uri": f"file://{checkpoint}", "digest": "sha256:" + "1" * 64}
    assert commands.run_build(_task(checkpoint, tmp_path, source=wrong)) == BuildStage.DIGEST_MISMATCH
    answer = tmp_path / "results" / "build.json"
    assert BuildResult.model_validate_json(answer.read_bytes()).exit_code in FINAL_EXIT_CODES
    answer.unlink()
    (tmp_path / "blocked").write_text("")
    blocked = [f"{tmp_path}/blocked/repository"]
    assert commands.run_build(_task(checkpoint, tmp_path, repositories=blocked)) == BuildStage.PUBLISH
    assert not answer.exists()
    assert "check the volume" in BuildResult.model_validate_json((tmp_path / "termination").read_bytes()).message
    missing = [{"space": "s", "anchors": f"file://{tmp_path}/gone.npz"}]
    assert commands.run_build(_task(checkpoint, tmp_path, founders=missing)) == BuildStage.RETRY
    assert not answer.exists()


def test_a_task_that_is_none_has_its_own_exit_code(tmp_path: Path) -> None:
    assert commands.run_build('{"kind": "build"}') == 64


def test_sigterm_is_a_disruption_and_never_a_verdict(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told_to_stop(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(5)

    monkeypatch.setattr(ReferenceEncoder, "encode_raw", told_to_stop)
    before = signal.getsignal(signal.SIGTERM)
    assert commands.run_build(_task(checkpoint, tmp_path)) == BuildStage.DISRUPTED
    assert signal.getsignal(signal.SIGTERM) == before
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "pool").exists()


@pytest.mark.parametrize(
    ("uri", "holdout", "wanted"),
    [
        ("../../shop.jsonl", "s3://holdouts/core/1.0.0", "s3://holdouts/shop.jsonl"),
        ("shop.jsonl", "file:///h/core/1.0.0", "file:///h/core/1.0.0/shop.jsonl"),
        ("gs://other/shop.jsonl", "file:///h/core", "gs://other/shop.jsonl"),
    ],
)
def test_a_relative_catalogue_belongs_to_its_holdout(uri: str, holdout: str, wanted: str) -> None:
    assert catalogue_uri(uri, holdout) == wanted


def test_every_stage_is_one_of_the_contracts_exit_codes() -> None:
    assert set(FINAL_EXIT_CODES) >= {
        BuildStage.BAD_CHECKPOINT,
        BuildStage.DIGEST_MISMATCH,
        BuildStage.EXPORT,
        BuildStage.PARSE,
        BuildStage.ENGINE,
        BuildStage.ACCURACY,
        BuildStage.NO_GPU,
    }
