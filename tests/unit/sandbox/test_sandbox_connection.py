"""Kubeconfigs are written and read without a client library, and no key shows."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml

from searchops_sandbox.certificates import make_certificates
from searchops_sandbox.cluster import write_kubeconfig
from searchops_sandbox.kubernetes_api import Connection, KubernetesApi
from searchops_sandbox.processes import SandboxError
from searchops_sandbox.registration import CellEntry, PoolEntry


def test_a_written_kubeconfig_reads_back(tmp_path: Path) -> None:
    authority = make_certificates(tmp_path / "pki").authority.read_text()
    connection = Connection("https://127.0.0.1:6443", authority=authority, token="s3cret")
    path = write_kubeconfig(tmp_path / "config", connection, user="someone", namespace="shop")
    assert Connection.from_kubeconfig(path) == connection
    assert path.stat().st_mode & 0o077 == 0
    assert connection.tls().get_ca_certs()
    assert "s3cret" not in repr(connection)


def test_client_certificates_are_read_from_files_and_from_data(tmp_path: Path) -> None:
    files = make_certificates(tmp_path / "pki")
    content = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [
            {"name": "k", "cluster": {"server": "https://k:1/", "certificate-authority": str(files.authority)}}
        ],
        "users": [
            {
                "name": "u",
                "user": {
                    "client-certificate": str(files.server),
                    "client-key-data": base64.b64encode(files.server_key.read_bytes()).decode(),
                },
            }
        ],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(content))
    connection = Connection.from_kubeconfig(path)
    assert connection.server == "https://k:1"
    assert connection.client_certificate == files.server.read_text()
    assert connection.tls().get_ca_certs()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"current-context": "gone", "contexts": []}, r"current-context is 'gone', contexts are \[\]"),
        (
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": {"server": "https://k"}}],
                "users": [{"name": "u", "user": {"exec": {"command": "login"}}}],
            },
            "logs in by a plug-in",
        ),
    ],
)
def test_an_unusable_kubeconfig_is_refused(tmp_path: Path, content: dict[str, object], message: str) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SandboxError, match=message):
        Connection.from_kubeconfig(path)


async def test_a_closed_client_says_so() -> None:
    with pytest.raises(SandboxError, match="async with"):
        await KubernetesApi(Connection("https://127.0.0.1:1")).get("/version")


def test_certificates_of_an_earlier_start_are_kept(tmp_path: Path) -> None:
    first = make_certificates(tmp_path).authority.read_bytes()
    assert make_certificates(tmp_path).authority.read_bytes() == first
    assert make_certificates(tmp_path).server_key.stat().st_mode & 0o077 == 0


def test_cells_and_pools_become_labelled_secrets() -> None:
    cell = CellEntry("eu-1", ("http://a:1", "http://b:1"), 6334, "s3cret", {"region": "eu"}, max_collections=7)
    secret = cell.secret("searchops-system")
    assert secret["metadata"]["labels"] == {"region": "eu", "searchops.dev/cell": "true"}
    assert secret["stringData"] == {
        "nodes": "http://a:1\nhttp://b:1",
        "grpcPort": "6334",
        "apiKey": "s3cret",
        "maxCollections": "7",
    }
    assert "s3cret" not in repr(cell)
    pool = PoolEntry("default", ("http://t:8000",), ("t:8001",), Path("/models"))
    assert pool.secret("searchops-system")["metadata"]["labels"] == {"searchops.dev/pool": "true"}
    assert pool.secret("searchops-system")["stringData"] == {
        "urls": "http://t:8000",
        "grpcUrls": "t:8001",
        "repository": "/models",
        "accelerator": "cpu",
    }
