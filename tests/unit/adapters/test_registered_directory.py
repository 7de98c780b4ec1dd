"""Cells and pools out of Secrets, addresses out of EndpointSlices, and what is left out because it cannot be used."""

from __future__ import annotations

import base64
import logging
from typing import Any

import pytest

from searchops.adapters.directory import RegisteredDirectory

KEY = "a-key-of-a-cell-with-32-characters!!"


def secret(name: str, kind: str, data: dict[str, str], **labels: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"metadata": {"name": name, "labels": {f"searchops.dev/{kind}": "true", **labels}}, "data": encoded}


def endpoints(name: str, service: str, *addresses: tuple[str, bool | None]) -> dict[str, Any]:
    found = [
        {"addresses": [address], "conditions": {} if ready is None else {"ready": ready}}
        for address, ready in addresses
    ]
    return {"metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}}, "endpoints": found}


def test_a_cells_secret_is_a_registration() -> None:
    protected: list[str] = []
    directory = RegisteredDirectory(protect=protected.append)
    data = {
        "nodes": "http://q-0:6333 http://q-1:6333\n",
        "apiKey": f"{KEY}\n",
        "altApiKey": "another-key-of-the-cell-32-characters",
        "caCert": "-----BEGIN CERTIFICATE-----",
        "grpcPort": "6334",
        "maxCollections": "400",
        "adoptable": "old-products legacy",
    }
    assert directory.apply_secret("ADDED", secret("eu-1", "cell", data, region="eu"))
    cell = directory.cells()["eu-1"]
    assert cell.urls == ("http://q-0:6333", "http://q-1:6333")
    assert (cell.api_key, cell.grpc_port, cell.max_collections) == (KEY, 6334, 400)
    assert (set(cell.adoptable), cell.labels["region"], cell.key_is_strong) == ({"old-products", "legacy"}, "eu", True)
    assert protected == [KEY, "another-key-of-the-cell-32-characters"]
    assert KEY not in repr(cell)
    assert "CERTIFICATE" not in repr(cell)
    assert not directory.apply_secret("MODIFIED", secret("eu-1", "cell", data, region="eu")), "nothing changed"
    assert directory.apply_secret("MODIFIED", secret("eu-1", "cell", {**data, "apiKey": "new" + KEY}, region="eu"))


@pytest.mark.parametrize("how", ["deleted", "unlabelled"])
def test_a_secret_that_goes_takes_its_cell_with_it(how: str) -> None:
    directory = RegisteredDirectory()
    raw = secret("eu-1", "cell", {"nodes": "http://q:6333", "apiKey": KEY})
    directory.apply_secret("ADDED", raw)
    gone = raw if how == "deleted" else {"metadata": {"name": "eu-1", "labels": None}}
    assert directory.apply_secret("DELETED" if how == "deleted" else "MODIFIED", gone)
    assert directory.cells() == {}
    assert not directory.apply_secret("DELETED", gone)


def test_a_foreign_secret_is_not_looked_at() -> None:
    protected: list[str] = []
    directory = RegisteredDirectory(protect=protected.append)
    raw = secret("other", "something", {"apiKey": KEY})
    assert not directory.apply_secret("ADDED", raw)
    assert not directory.apply_secret("ADDED", {**raw, "metadata": {"name": "other", "labels": {}}})
    assert (directory.cells(), directory.pools(), protected) == ({}, {}, [])


def test_every_ready_address_of_a_service_is_a_node() -> None:
    directory = RegisteredDirectory()
    directory.apply_secret("ADDED", secret("eu-1", "cell", {"service": "qdrant", "apiKey": KEY}))
    assert directory.cells()["eu-1"].urls == ()
    assert directory.apply_slice("ADDED", endpoints("a", "qdrant", ("10.0.0.2", True), ("10.0.0.3", False)))
    assert directory.cells()["eu-1"].urls == ("http://10.0.0.2:6333",)
    assert directory.apply_slice("ADDED", endpoints("b", "qdrant", ("fd00::9", None), ("10.0.0.2", True)))
    assert directory.cells()["eu-1"].urls == ("http://10.0.0.2:6333", "http://[fd00::9]:6333")
    assert not directory.apply_slice("ADDED", endpoints("c", "something-else", ("10.0.0.7", True)))
    assert not directory.apply_slice("MODIFIED", endpoints("b", "qdrant", ("fd00::9", True), ("10.0.0.2", True)))
    assert directory.apply_slice("DELETED", {"metadata": {"name": "a", "labels": None}}) is False
    assert directory.apply_slice("MODIFIED", {"metadata": {"name": "b"}, "endpoints": None})
    assert directory.cells()["eu-1"].urls == ()


def test_a_cell_with_a_certificate_is_spoken_to_over_tls_on_its_own_port() -> None:
    directory = RegisteredDirectory()
    directory.apply_slice("ADDED", endpoints("a", "qdrant", ("10.0.0.2", True)))
    data = {"service": "qdrant", "cellPort": "7443", "apiKey": KEY, "caCert": "PEM"}
    directory.apply_secret("ADDED", secret("eu-1", "cell", data))
    assert directory.cells()["eu-1"].urls == ("https://10.0.0.2:7443",)


def test_a_pool_by_addresses_and_a_pool_by_service() -> None:
    directory = RegisteredDirectory()
    given = {
        "urls": "http://t-0:8000 http://t-1:8000",
        "grpcUrls": "t-0:8001 t-1:8001",
        "repository": "s3://models/a10",
        "accelerator": "nvidia-a10",
    }
    directory.apply_secret("ADDED", secret("a10", "pool", given))
    directory.apply_secret("ADDED", secret("cpu", "pool", {"service": "triton", "repository": "file:///m"}))
    directory.apply_slice("ADDED", endpoints("t", "triton", ("10.0.0.2", True), ("fd00::9", True)))
    assert directory.pools()["a10"].grpc_urls == ("t-0:8001", "t-1:8001")
    assert (directory.pools()["a10"].repository, directory.pools()["a10"].accelerator) == (
        "s3://models/a10",
        "nvidia-a10",
    )
    assert directory.pools()["cpu"].urls == ("http://10.0.0.2:8000", "http://[fd00::9]:8000")
    assert directory.pools()["cpu"].grpc_urls == ("10.0.0.2:8001", "[fd00::9]:8001")
    assert directory.pools()["cpu"].accelerator == "cpu"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (secret("bad", "cell", {"nodes": "http://q", "grpcPort": "many"}), "grpcPort is 'many'; wanted a whole number"),
        (secret("bad", "cell", {"nodes": "http://q", "apiKey": f"{KEY}\nand more"}), "apiKey holds characters"),
        (secret("bad", "pool", {"urls": "http://a http://b", "grpcUrls": "a:8001"}), "2 urls and 1 grpcUrls"),
        (secret("bad", "pool", {"service": "t", "httpPort": "none"}), "httpPort is 'none'"),
    ],
)
def test_a_secret_that_cannot_be_used_is_logged_once_and_hurts_no_other(
    raw: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    directory = RegisteredDirectory()
    directory.apply_secret("ADDED", secret("good", "cell", {"nodes": "http://q:6333", "apiKey": KEY}))
    with caplog.at_level(logging.ERROR):
        directory.apply_secret("ADDED", raw)
        for number in range(3):
            directory.apply_slice("ADDED", endpoints("s", "q", (f"10.0.0.{number}", True)))
    assert [name for name, cell in directory.cells().items() if not cell.problem] == ["good"]
    assert directory.pools() == {}
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(records) == 1
    assert (records[0].__dict__["secret"], said in records[0].__dict__["problem"]) == ("bad", True)
    assert KEY not in str(records[0].__dict__)
    with caplog.at_level(logging.ERROR):
        directory.apply_secret("MODIFIED", secret("bad", "cell", {"nodes": "http://q", "apiKey": KEY}))
    assert not directory.cells()["bad"].problem, "a mended Secret is used at once"


def test_a_secret_without_data_is_a_cell_without_an_address() -> None:
    directory = RegisteredDirectory()
    directory.apply_secret("ADDED", {**secret("eu-1", "cell", {}), "data": None})
    assert directory.cells()["eu-1"].urls == ()
    assert not directory.cells()["eu-1"].key_is_strong


@pytest.mark.parametrize("where", ["labels", "annotations"])
def test_a_cell_is_drained_by_a_label_or_an_annotation_of_its_secret(where: str) -> None:
    directory = RegisteredDirectory()
    raw = secret("eu-1", "cell", {"nodes": "http://q-0:6333", "apiKey": KEY})
    directory.apply_secret("ADDED", raw)
    assert not directory.cells()["eu-1"].draining
    raw["metadata"].setdefault(where, {})["searchops.dev/drain"] = "true"
    assert directory.apply_secret("MODIFIED", raw)
    assert directory.cells()["eu-1"].draining
