"""What is wrong with a cell's Secret is said with its name and the field's, and costs that cell alone."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from searchops.adapters.cell_secrets import read_cell
from searchops.adapters.directory import RegisteredDirectory
from searchops.adapters.qdrant import QdrantCells
from searchops.runtime.errors import ReconcileError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.observed import CellRegistration

KEY = "a-key-of-a-cell-with-32-characters!!"
GOOD = {"nodes": "http://127.0.0.1:1", "apiKey": KEY}


def secret(data: Mapping[str, str | bytes], name: str = "eu-1") -> dict[str, Any]:
    encoded = {
        key: base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
        for key, value in data.items()
    }
    return {"metadata": {"name": name, "labels": {"searchops.dev/cell": "true", "region": "eu"}}, "data": encoded}


def read(data: Mapping[str, str | bytes]) -> CellRegistration:
    return read_cell(secret(data), draining=False, addresses=lambda _: ())


BAD: dict[str, tuple[dict[str, str | bytes], str]] = {
    "no scheme": ({"nodes": "127.0.0.1:6333"}, "nodes holds '127.0.0.1:6333', which is neither http nor https"),
    "another scheme": ({"nodes": "ftp://q:6333"}, "nodes holds 'ftp://q:6333', which is neither http nor https"),
    "an open bracket": ({"nodes": "http://[::1"}, "nodes holds an address that is none (Invalid IPv6 URL)"),
    "a port beyond": ({"nodes": "http://q:65536"}, "nodes holds an address that is none (Port out of range"),
    "a negative port": ({"nodes": "http://q:-5"}, "nodes holds an address that is none (Port could not"),
    "a port of letters": ({"nodes": "http://q:abc"}, "nodes holds an address that is none (Port could not"),
    "port 0": ({"nodes": "http://q:0"}, "nodes holds 'http://q:0', with port 0"),
    "no host": ({"nodes": "http://:6333"}, "whose host is none"),
    "two dots": ({"nodes": "http://q..x:6333"}, "whose host is none"),
    "a long label": ({"nodes": f"http://{'a' * 64}.example"}, "whose host is none"),
    "a host that is no ASCII": ({"nodes": "http://qdränt:6333"}, "whose host is none"),
    "a NUL": ({"nodes": "http://q\0:6333"}, "whose host is none"),
    "a password": ({"nodes": "http://me:hush@q:6333"}, "nodes holds an address with a user or password"),
    "a query": ({"nodes": "http://q:6333?x=1"}, "with port 0, a query or a fragment"),
    "one bad of two": ({"nodes": "http://q:6333 q:6333"}, "nodes holds 'q:6333'"),
    "a gRPC port of letters": ({"grpcPort": "many"}, "grpcPort is 'many'; wanted a whole number from 1 to 65535"),
    "a gRPC port beyond": ({"grpcPort": "65536"}, "grpcPort is '65536'"),
    "no collections": ({"maxCollections": "0"}, "maxCollections is '0'; wanted a whole number from 1 to 1000000"),
    "negative collections": ({"maxCollections": "-5"}, "maxCollections is '-5'"),
    "endless collections": ({"maxCollections": "9" * 5000}, "maxCollections is '999"),
    "half collections": ({"maxCollections": "0.5"}, "maxCollections is '0.5'"),
    "another script's digits": ({"maxCollections": "٣"}, "maxCollections is '٣'"),
    "a key with a line break": ({"apiKey": f"{KEY}\nmore"}, "apiKey holds characters that no HTTP header may"),
    "a second key with an umlaut": ({"altApiKey": f"{KEY}é"}, "altApiKey holds characters that no HTTP header may"),
    "a key that is no text": ({"apiKey": b"\xff\xfe"}, "the value of apiKey is no text in UTF-8"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_used_is_said_with_secret_and_field(what: str) -> None:
    data, says = BAD[what]
    cell = read({**GOOD, **data})
    assert cell.problem.startswith("Secret eu-1 cannot be used: ")
    assert says in cell.problem
    assert KEY not in cell.problem
    assert "hush" not in cell.problem
    assert (cell.urls, cell.api_key, cell.labels["region"]) == ((), "", "eu")


def test_a_value_that_is_no_base64_is_named() -> None:
    raw = {**secret({}), "data": {"nodes": "no base64!"}}
    assert "the value of nodes is no base64" in read_cell(raw, draining=False, addresses=lambda _: ()).problem


@pytest.mark.parametrize("nodes", ["http://q", "https://q.svc.cluster.local.:6333", "http://[fd00::9]:6333/qdrant"])
def test_what_can_be_used_has_no_problem(nodes: str) -> None:
    assert read({**GOOD, "nodes": nodes}) == replace(read(GOOD), urls=(nodes,))
    assert read(GOOD).problem == ""


def test_a_secret_of_a_cell_that_is_broken_by_an_edit_is_still_that_cell() -> None:
    """Left out, its tenants would be taken for tenants of a cell that is gone."""
    directory = RegisteredDirectory()
    directory.apply_secret("ADDED", secret(GOOD))
    assert directory.apply_secret("MODIFIED", secret({**GOOD, "grpcPort": "0"}))
    assert "grpcPort is '0'" in directory.cells()["eu-1"].problem
    assert directory.apply_secret("MODIFIED", secret(GOOD)), "a mended one is used at once"
    assert directory.cells()["eu-1"].urls == ("http://127.0.0.1:1",)


def test_a_secret_that_becomes_another_thing_is_a_cell_no_more() -> None:
    directory = RegisteredDirectory()
    directory.apply_secret("ADDED", secret(GOOD))
    pool = secret({"urls": "http://t:8000", "grpcUrls": "t:8001"})
    pool["metadata"]["labels"] = {"searchops.dev/pool": "true"}
    assert directory.apply_secret("MODIFIED", pool)
    assert (list(directory.cells()), list(directory.pools())) == ([], ["eu-1"])
    assert directory.apply_secret("MODIFIED", secret(GOOD))
    assert (list(directory.cells()), list(directory.pools())) == (["eu-1"], [])


WORDS = st.one_of(
    st.text(max_size=30),
    st.binary(max_size=20),
    st.sampled_from([value for data, _ in BAD.values() for value in data.values()]),
    st.sampled_from(["-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "ein Zertifikät", "\0"]),
)
FIELDS = st.sampled_from(["nodes", "apiKey", "altApiKey", "caCert", "grpcPort", "maxCollections", "adoptable"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(FIELDS, WORDS, max_size=4))
def test_no_content_of_a_secret_makes_the_directory_fail(data: dict[str, str | bytes]) -> None:
    directory = RegisteredDirectory()
    directory.apply_secret("ADDED", secret(GOOD, "good"))
    directory.apply_secret("ADDED", secret({**GOOD, **data}, "bad"))
    assert set(directory.cells()) == {"bad", "good"}
    assert directory.cells()["good"].urls == ("http://127.0.0.1:1",)


@pytest.mark.parametrize("what", [*BAD, "a certificate of letters", "a certificate that is no ASCII"])
async def test_every_read_of_such_a_cell_ends_in_an_error_of_ours(what: str) -> None:
    """Any other error would end the round over every cell that it is read in."""
    data = BAD[what][0] if what in BAD else {"caCert": {"letters": "PEM"}.get(what.split()[-1], "Zertifikät")}
    ports = QdrantCells(timeout=0.5)
    cell = read({**GOOD, **data})
    try:
        survey = await ports.survey(cell)
        assert not survey.reachable
        assert "Secret" in survey.error
        for asked in (
            ports.contents(cell),
            ports.load(cell),
            ports.describe(cell, "x"),
            ports.drop_collection(cell, "x"),
        ):
            with pytest.raises(ReconcileError, match="Secret"):
                await asked
        assert not (await ports.probe_search(cell, "prod.shop.acme", "lex-1", "token")).ok
    finally:
        await ports.close()


async def test_a_host_that_no_resolver_takes_is_a_cell_that_does_not_answer() -> None:
    """Where the address comes from elsewhere than the Secret's nodes, such as an EndpointSlice."""
    ports = QdrantCells(timeout=0.5)
    try:
        survey = await ports.survey(replace(read(GOOD), urls=(f"http://{'a' * 70}.x",)))
        assert not survey.reachable
        broken = await ports.survey(replace(read(GOOD), urls=("http://q:99999",)))
        assert "an address of its Secret is none" in broken.error
    finally:
        await ports.close()
