"""What goes into the images: from the lock, without what an image has no use for, and never as root."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.stores import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
HEAVY = {"torch", "scipy", "transformers", "sentence-transformers", "onnx", "onnxruntime", "qdrant-edge-py", "pandas"}

ROOMS = {"searchops": ROOT / "operator/searchops", "searchops_workers": ROOT / "workers/searchops_workers"}
STARTS = {
    "operator": ROOMS["searchops"],
    "gateway": ROOMS["searchops_workers"] / "gateway",
    "worker": ROOMS["searchops_workers"],
}
BROUGHT_BY_THE_SERVER = {"triton_python_backend_utils", "tensorrt"}
"""What the machine that runs the code brings: Triton's Python backend, NVIDIA's wheels."""


def distribution_of(module: str) -> str | None:
    """The locked name of what a top-level module comes from; None for what a server brings."""
    if module in BROUGHT_BY_THE_SERVER:
        return None
    return packages_distributions()[module][0].lower().replace("_", "-")


def imports(folder: Path) -> set[str]:
    """Top-level modules of others that the code in a folder imports, now or later, by way of our own modules too."""
    waiting = [module_of(path) for path in folder.rglob("*.py")]
    seen: set[str] = set()
    others: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for name in imported_by(module):
            top = name.partition(".")[0]
            if top in ROOMS:
                waiting.append(name)
            elif top not in sys.stdlib_module_names:
                others.add(top)
    return others


def module_of(path: Path) -> str:
    for room, folder in ROOMS.items():
        if path.is_relative_to(folder):
            return ".".join([room, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__")
    raise AssertionError(f"{path} is in no room")


def imported_by(module: str) -> Iterator[str]:
    """Names that a module imports when it runs; `from a import b` gives both `a` and `a.b`."""
    room, *parts = module.split(".")
    base = ROOMS[room].joinpath(*parts)
    file = next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))] if file else []
    while waiting:
        match waiting.pop():
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(source), names=names, level=0):
                yield source
                yield from (f"{source}.{name.name}" for name in names)
            case node:
                waiting += ast.iter_child_nodes(node)


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


@pytest.mark.parametrize("extra", ["operator", "gateway", "worker"])
def test_an_extra_brings_what_its_code_imports(extra: str) -> None:
    imported = {distribution_of(name) for name in imports(STARTS[extra])} - {None}
    assert len(imported) >= 12
    assert imported - locked(extra) == set()


@pytest.mark.parametrize("extra", ["operator", "worker"])
def test_who_reaches_the_artifact_store_speaks_its_schemes(extra: str) -> None:
    assert "fsspec" in imports(STARTS[extra])
    assert {"fsspec", *PACKAGES.values()} <= locked(extra)


def test_the_gateway_reads_no_artifacts_and_carries_no_store() -> None:
    assert "fsspec" not in imports(STARTS["gateway"])
    assert locked("gateway") & set(PACKAGES.values()) == set()


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


def test_the_gateways_image_starts_by_a_program_that_needs_nothing_more() -> None:
    """``searchops-worker gateway`` with every package of the worker's image alone made unimportable."""
    missing = locked("worker") - locked("gateway")
    assert {"scipy", "jinja2", "torch"} <= missing
    brought = packages_distributions().items()
    tops = {top for top, names in brought if {name.lower().replace("_", "-") for name in names} <= missing}
    code = (
        "from importlib.machinery import PathFinder\n"
        f"gone, found = {sorted(tops)!r}, PathFinder.find_spec\n"
        "PathFinder.find_spec = classmethod(lambda cls, name, path=None, target=None:\n"
        "    None if name.partition('.')[0] in gone else found(name, path, target))\n"
        "import searchops_workers.gateway.commands\n"
        "from searchops_workers.cli import main\n"
        "main()\n"
    )
    for arguments, wanted in ((["gateway", "--help"], "gateway"), (["--help"], "run")):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert wanted in done.stdout
        assert "holdout" not in done.stdout
