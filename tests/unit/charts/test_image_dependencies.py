"""What goes into the images: from the lock, without what an image has no use for, and never as root."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
HEAVY = {"torch", "scipy", "transformers", "sentence-transformers", "onnx", "onnxruntime", "qdrant-edge-py", "pandas"}


def locked(extra: str) -> set[str]:
    """Names of every package that an extra brings, by the lock's own graph."""
    packages: dict[str, list[dict[str, Any]]] = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]:
        packages.setdefault(package["name"], []).append(package)
    (own,) = packages["searchops"]
    waiting = [*own["dependencies"], *own["optional-dependencies"][extra]]
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while waiting:
        entry = waiting.pop()
        extras = tuple(sorted(entry.get("extra", ())))
        if (entry["name"], extras) in seen:
            continue
        seen.add((entry["name"], extras))
        for package in packages[entry["name"]]:
            waiting += package.get("dependencies", ())
            for name in extras:
                waiting += package.get("optional-dependencies", {}).get(name, ())
    return {name for name, _ in seen}


@pytest.mark.parametrize(("extra", "needs"), [("operator", "kopf"), ("gateway", "starlette")])
def test_operator_and_gateway_carry_no_model_code(extra: str, needs: str) -> None:
    found = locked(extra)
    assert needs in found
    assert found & HEAVY == set()


def test_the_worker_does_carry_it() -> None:
    assert {"torch", "scipy", "onnxruntime"} <= locked("worker")


def test_the_gateway_carries_no_kubernetes_client() -> None:
    assert locked("gateway") & {"kopf", "kubernetes"} == set()


@pytest.mark.parametrize("extra", ["operator", "gateway"])
def test_uv_exports_the_same(extra: str) -> None:
    program = shutil.which("uv")
    if program is None:
        # The graph of the lock is checked above without uv; its own reading is compared where it is installed.
        return
    command = [program, "export", "--frozen", "--offline", "--no-default-groups", "--no-hashes", "--extra", extra]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    names = {match[1] for match in re.finditer(r"^([a-z0-9][a-z0-9._-]*)==", done.stdout, re.MULTILINE)}
    assert len(names) > 20
    assert names <= locked(extra)
    assert names & HEAVY == set()


def test_every_image_is_a_target_built_from_the_lock() -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    assert {"operator", "gateway", "worker-cpu", "worker-gpu"} <= targets
    syncs = re.findall(r"uv sync (.+?)(?:\\)?$", DOCKERFILE, re.MULTILINE)
    assert len(syncs) == 8
    assert all("--frozen" in line and "--no-default-groups" in line for line in syncs)


def test_no_image_runs_as_root_and_none_checks_its_own_health() -> None:
    runtime = DOCKERFILE.split(" AS runtime\n")[1]
    assert re.findall(r"^USER (.+)$", runtime, re.MULTILINE) == ["65532:65532"]
    assert "HEALTHCHECK" not in DOCKERFILE
    for target in ("operator", "gateway", "worker-cpu", "worker-gpu"):
        assert re.search(rf"^FROM runtime AS {target}$", DOCKERFILE, re.MULTILINE)


def test_versions_in_the_dockerfile_are_those_of_the_table() -> None:
    table = (ROOT / "docs/versions.md").read_text(encoding="utf-8")
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE, re.MULTILINE))
    assert set(arguments) == {"PYTHON_IMAGE", "UV_VERSION", "TENSORRT_VERSION"}
    for name, value in arguments.items():
        assert re.search(rf"\| `{name}` \| `{re.escape(value)}` \|", table), name
    bindings = f"tensorrt-cu13-bindings=={arguments['TENSORRT_VERSION']}"
    assert bindings in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
