"""Charts by a real helm, a control plane with our definitions, and a tenant that is rebuilt on a cell."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
import pytest_asyncio
import yaml

from integration import reindex_parts
from integration.argocd_objects import ArgoCd
from searchops_sandbox.binaries import ensure_binaries
from searchops_sandbox.qdrant.cell import QdrantCell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from searchops_sandbox.control_plane import ControlPlane

ROOT = Path(__file__).parents[2]

# Python 3.11 makes a loop for whoever first asks for "the current one", and nobody closes it: say that there is none.
asyncio.set_event_loop(None)


class Helm(Protocol):
    """Runs helm and returns its standard output; raises CalledProcessError where helm refuses."""

    def __call__(self, *arguments: str) -> str: ...


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The sandbox's helm, with a home of its own."""
    program = ensure_binaries(["helm"])["helm"]
    home = tmp_path_factory.mktemp("helm")
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "HELM_CACHE_HOME": str(home / "cache")}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(program), *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    return run


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def definitions(control_plane: ControlPlane) -> ControlPlane:
    """A control plane with our definitions, established, and a namespace of merchants and one of the operator."""
    await control_plane.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    names = [f"crd/{path.stem}" for path in sorted((ROOT / "crds").glob("*.yaml"))]
    await control_plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
    namespaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        for name, labels in {
            "merchants-eu": {},
            "searchops-system": {"pod-security.kubernetes.io/enforce": "restricted"},
        }.items()
    ]
    await control_plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(namespaces))
    return control_plane


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def installed(helm: Helm, definitions: ControlPlane) -> AsyncIterator[ControlPlane]:
    """The chart's ServiceAccounts, rights and policies, applied, and gone again afterwards."""
    settings = ("--set", "settings.artifacts=s3://a/b")
    rendered = helm("template", "searchops", "charts/searchops", "--namespace", "searchops-system", *settings)
    wanted = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
    documents = [
        document
        for document in yaml.safe_load_all(rendered)
        if document and (document["kind"] in wanted or document["kind"].startswith("ValidatingAdmission"))
    ]
    text = yaml.safe_dump_all(documents)
    await definitions.kubectl("apply", "-f", "-", stdin=text)
    yield definitions
    await definitions.kubectl("delete", "--wait=true", "-f", "-", stdin=text)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cell(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QdrantCell]:
    """The sandbox's Qdrant double, one for the tests of a module, whose tenants keep apart by their names."""
    key = "reindex-suite-key-of-32-characters!!"
    started = QdrantCell("reindex", folder=tmp_path_factory.mktemp("cell"), api_key=key)
    await started.start()
    yield started
    await started.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def tenant(cell: QdrantCell, tmp_path: Path) -> AsyncIterator[reindex_parts.Tenant]:
    """A tenant of one test, encoded by a labelled double of Triton; the cell is without faults again afterwards."""
    triton = reindex_parts.FakeTriton()
    await triton.start()
    made = reindex_parts.Tenant(cell, triton, tmp_path)
    yield made
    await cell.clear_faults()
    await made.close()
    await triton.stop()


@pytest.fixture(scope="module")
def argocd(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> ArgoCd:
    """Argo CD's command line over the chart's entries."""
    return ArgoCd(helm, tmp_path_factory.mktemp("argocd"))
