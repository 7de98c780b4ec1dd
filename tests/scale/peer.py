"""The peer `qdrant-operator` from PyPI: its environment, its objects, its process.

It needs Python 3.12 or later, so it lives in a virtual environment of its own under the user's cache folder, installed
from versions and hashes that are pinned here; nothing of this project depends on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock

from searchops_sandbox.ports import free_port
from searchops_sandbox.processes import ManagedProcess
from searchops_sandbox.triton_environment import cache_root

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scale.tenant_world import TenantWorld
    from searchops_sandbox.qdrant.cell import QdrantCell

HERE: Final = Path(__file__).resolve().parent
REQUIREMENTS: Final = HERE / "peer_requirements.txt"
LAUNCHER: Final = HERE / "peer_launch.py"
NAME: Final = "qdrant-operator 0.3.2"
GROUP: Final = "qdrant.io"
NAMESPACE: Final = "peer"
CLUSTER: Final = "shared"
COLLECTIONS_PATH: Final = f"/apis/{GROUP}/v1alpha1/qdrantcollections"
INDEXES: Final = {"sku": "keyword", "brand": "keyword", "category": "keyword", "price": "float", "title": "text"}
KINDS: Final = (
    "QdrantCluster",
    "QdrantCollection",
    "QdrantBackup",
    "QdrantBackupSchedule",
    "QdrantRestore",
    "QdrantAccessKey",
    "QdrantMigration",
)
STEP_SECONDS: Final = 600.0


class PeerError(RuntimeError):
    """The peer cannot run here; the message says why."""


def ensure_peer() -> Path:
    """Python of the peer's environment, made first where it is not there yet.

    Raises:
        PeerError: no fitting Python, no uv, or an installation that fails.
    """
    key = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
    folder = cache_root() / "peer"
    python = folder / key / "bin" / "python"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{key}.lock", timeout=STEP_SECONDS):
        if not python.exists():
            _install(folder / key)
    return python


def _install(target: Path) -> None:
    uv = next(filter(None, (shutil.which("uv"), _existing(HERE.parents[1] / "build" / "uv" / "bin" / "uv"))), None)
    if uv is None:
        raise PeerError("no uv; `make install` puts one into build/uv")
    staging = target.with_name(f".building-{uuid.uuid4().hex[:8]}")
    try:
        _step([uv, "venv", "--quiet", "--relocatable", "--python", _interpreter(uv), str(staging)])
        python = str(staging / "bin" / "python")
        pinned = ["--require-hashes", "--only-binary", ":all:", "-r", str(REQUIREMENTS)]
        _step([uv, "pip", "install", "--quiet", "--python", python, *pinned])
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _interpreter(uv: str) -> str:
    """``BENCH_PEER_PYTHON``, else what uv finds, else one of pyenv's."""
    own = os.environ.get("BENCH_PEER_PYTHON")
    if own:
        return own
    found = subprocess.run(
        [uv, "python", "find", "--no-python-downloads", "--no-project", ">=3.12"],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode == 0:
        return found.stdout.strip()
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for candidate in sorted(root.glob("versions/3.1[2-9].*/bin/python")):
        return str(candidate)
    raise PeerError("it needs Python 3.12 or later; BENCH_PEER_PYTHON may name one")


def _existing(path: Path) -> str | None:
    return str(path) if path.exists() else None


def _step(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=STEP_SECONDS, check=False)
    if done.returncode != 0:
        raise PeerError(f"`{' '.join(argv)}` ended with {done.returncode}: {done.stderr[-500:]}")


class Peer:
    """The peer over one cell.

    Args:
        world: whose API server it works for.
        cell: the server that every Service's name leads to.
    """

    def __init__(self, world: TenantWorld, cell: QdrantCell) -> None:
        self._world = world
        self._cell = cell
        self._process: ManagedProcess | None = None

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            PeerError: it does not run; with the end of its log.
        """
        if self._process is None or not self._process.running or self._process.pid is None:
            raise PeerError(f"the peer ended:\n{self._process.tail(30) if self._process else ''}")
        return self._process.pid

    async def install(self) -> None:
        """Its kinds, its namespace, and one cluster with the cell's key."""
        await self._world.apply("\n---\n".join(json.dumps(_definition(kind)) for kind in KINDS))
        await self._world.control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "cell", "namespace": NAMESPACE},
            "stringData": {"api-key": self._cell.api_key},
        }
        cluster = _object(
            "QdrantCluster",
            CLUSTER,
            {"version": "v1.18.3", "apiKey": {"secretRef": {"name": "cell", "key": "api-key"}}},
        )
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        await self._world.apply("\n---\n".join(json.dumps(item) for item in (namespace, secret, cluster)))

    async def start(self, python: Path) -> None:
        """Start it. Helm, by which it would make the servers, is a program that says they are there already."""
        tools = self._world.folder / "peer-tools"
        tools.mkdir(exist_ok=True)
        helm = tools / "helm"
        helm.write_text('#!/bin/sh\necho \'{"info": {"status": "deployed"}}\'\n', encoding="utf-8")
        helm.chmod(0o755)
        environment = {
            "PATH": os.pathsep.join((str(tools), os.environ["PATH"])),
            "HOME": os.environ["HOME"],
            "KUBECONFIG": str(self._world.control_plane.kubeconfig),
            "PEER_CELL_PORT": str(self._cell.rest_port),
        }
        probe = f"--liveness=http://127.0.0.1:{free_port()}/healthz"
        self._process = ManagedProcess(
            "peer", [str(python), str(LAUNCHER), probe], log=self._world.folder / "peer.log", env=environment
        )
        await self._process.start()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        if self._process is not None:
            await self._process.stop(grace=10.0)

    def tail(self) -> str:
        """The end of its log."""
        return self._process.tail(20) if self._process is not None else ""


def collection(number: int) -> dict[str, Any]:
    """A collection as a SearchTenant's: two sparse vectors, five payload indexes, strict mode, an alias."""
    name = f"merchant-{number:05}"
    spec = {
        "clusterRef": {"name": CLUSTER},
        "collectionName": f"peer.{name}@g1",
        "vectors": [],
        "sparseVectors": [{"name": "lex", "modifier": "idf"}, {"name": "tri", "modifier": "idf"}],
        "onDiskPayload": True,
        "payloadIndexes": [{"field": field, "type": kind} for field, kind in INDEXES.items()],
        "aliases": [f"peer.{name}"],
        "deletionPolicy": "Retain",
    }
    return _object("QdrantCollection", name, spec)


def collection_path() -> str:
    """Where its collections are created."""
    return f"/apis/{GROUP}/v1alpha1/namespaces/{NAMESPACE}/qdrantcollections"


def collection_ready(item: Mapping[str, Any]) -> bool:
    """Whether a QdrantCollection says that it is ready."""
    return bool(item.get("status", {}).get("phase") == "Ready")


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": f"{GROUP}/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def _definition(kind: str) -> dict[str, Any]:
    """A CustomResourceDefinition that takes every field, with a status of its own."""
    plural = f"{kind.lower()}s"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": anything},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [version],
        },
    }
