"""The commands that a ReindexJob's messages name: they annotate that very object, or say what is missing."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from searchops.adapters.kube_api import KubeApi
from searchops.cli.main import app


class Recording:
    """The API server's side of an annotation."""

    def __init__(self) -> None:
        self.patches: list[tuple[str, Any]] = []

    async def get(self, path: str) -> dict[str, Any]:
        return {"metadata": {"name": path.rsplit("/", 1)[1]}, "status": {"candidate": {"revision": "shop-r2-b"}}}

    async def patch(self, path: str, body: Any) -> None:
        self.patches.append((path, body["metadata"]["annotations"]))

    async def close(self) -> None:
        self.patches.append(("closed", None))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Recording:
    made = Recording()

    async def connect(kubeconfig: object) -> Recording:
        del kubeconfig
        return made

    monkeypatch.setattr(KubeApi, "connect", connect)
    return made


@pytest.mark.parametrize(
    ("arguments", "tail", "annotations"),
    [
        (
            ["approve", "acme-1", "shop-r2-bbbbbbbb", "--kind", "reindex", "-n", "shops"],
            "/namespaces/shops/reindexjobs/acme-1",
            {"searchops.dev/approve": "shop-r2-bbbbbbbb"},
        ),
        (
            ["retry", "acme-1", "mended", "--kind", "reindex", "-n", "shops"],
            "/namespaces/shops/reindexjobs/acme-1",
            {"searchops.dev/retry": "mended"},
        ),
        (["approve", "shop", "shop-r2-b"], "/embeddingmodels/shop", {"searchops.dev/approve": "shop-r2-b"}),
    ],
)
def test_the_object_that_is_named_is_annotated(
    server: Recording, arguments: list[str], tail: str, annotations: dict[str, str]
) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (path, seen), closed = server.patches
    assert path.endswith(tail)
    assert (seen, closed) == (annotations, ("closed", None))


@pytest.mark.parametrize(
    "arguments",
    [
        ["approve", "acme-1", "x", "--kind", "reindex"],
        ["approve", "shop", "x", "-n", "shops"],
        ["retry", "acme", "x", "--kind", "tenant", "-n", "shops"],
    ],
)
def test_what_names_no_object_is_refused_before_anything_is_asked(server: Recording, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, server.patches) == (2, [])
    assert "wanted model, or reindex with --namespace" in result.output
