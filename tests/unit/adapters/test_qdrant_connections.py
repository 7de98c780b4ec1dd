"""How the adapter reaches a cell: private authorities, broken certificates, addresses that are none, edited Secrets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest
import pytest_asyncio
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import UnexpectedResponse

from searchops.adapters.qdrant import TENANT_TOKEN, QdrantCells
from searchops.adapters.qdrant_errors import Full, Missing, Silent, Taken, translated
from searchops.api.observed import CellRegistration
from searchops.runtime.errors import NotReady, ReconcileError, Transient
from searchops_sandbox.certificates import make_certificates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY = "a-key-of-a-cell-with-32-characters!!"


class TlsCell:
    """Answers every read as an empty cell would, over TLS with a private authority."""

    def __init__(self, folder: Path) -> None:
        files = make_certificates(folder / "certificates")
        self.authority = files.authority.read_text()
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(files.server, files.server_key)
        self.keys: list[str] = []
        self.port = 0

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            await _closed(writer)
            return
        self.keys += [line.split(": ")[1] for line in head if line.lower().startswith("api-key")]
        result: dict[str, list[object]] = {"aliases": []} if "/aliases" in head[0] else {"collections": []}
        body = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        await writer.drain()
        await _closed(writer)


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Close to the end: a transport left open fails a later, innocent test."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest_asyncio.fixture
async def tls(tmp_path: Path) -> AsyncIterator[TlsCell]:
    cell = TlsCell(tmp_path)
    server = await cell.start()
    yield cell
    server.close()
    await server.wait_closed()


@pytest_asyncio.fixture
async def ports() -> AsyncIterator[QdrantCells]:
    made = QdrantCells(timeout=0.4)
    yield made
    await made.close()


def registration(url: str, ca_cert: str | None = None) -> CellRegistration:
    return CellRegistration("eu-1", {}, (url,) if url else (), None, 100, ca_cert=ca_cert, api_key=KEY)


async def test_a_private_authority_is_trusted_for_its_cell_alone(tls: TlsCell, ports: QdrantCells) -> None:
    url = f"https://127.0.0.1:{tls.port}"
    stranger = await ports.survey(registration(url))
    assert not stranger.reachable
    assert "CERTIFICATE_VERIFY_FAILED" in stranger.error
    assert tls.keys == [], "the key went to nobody who was not verified"
    known = await ports.survey(registration(url, tls.authority))
    assert (known.reachable, known.error, tls.keys) == (True, "", [KEY, KEY, KEY])


async def test_an_authority_that_is_not_the_servers_is_said_with_secret_and_field(
    tls: TlsCell, ports: QdrantCells, tmp_path: Path
) -> None:
    other = make_certificates(tmp_path / "another").authority.read_text()
    cell = registration(f"https://127.0.0.1:{tls.port}", other)
    survey = await ports.survey(cell)
    assert not survey.reachable
    assert "check caCert in the cell's Secret" in survey.error
    for asked in (ports.contents(cell), ports.load(cell), ports.drop_collection(cell, "prod.shop.a@g1")):
        with pytest.raises(ReconcileError):
            await asked
    assert tls.keys == [], "the key went to nobody who was not verified"


@pytest.mark.parametrize(
    "ca_cert",
    ["no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "ein Zertifikät", "\0"],
)
async def test_a_certificate_that_is_none_is_an_answer(ports: QdrantCells, ca_cert: str) -> None:
    cell = registration("https://127.0.0.1:1", ca_cert)
    survey = await ports.survey(cell)
    probe = await ports.probe_search(cell, "alias", "lex-1", "the-token")
    for reached, said in ((survey.reachable, survey.error), (probe.ok, probe.error)):
        assert not reached
        assert "caCert of its Secret cannot be read" in said
    with pytest.raises(NotReady, match="CellUnreachable"):
        await ports.drop_collection(cell, "prod.shop.a@g1")


async def test_a_cell_without_an_address_is_not_reachable(ports: QdrantCells) -> None:
    survey = await ports.survey(registration(""))
    assert not survey.reachable
    assert "its Secret names no node, and no Service with ready endpoints" in survey.error
    assert KEY not in survey.error


async def test_an_edited_secret_is_used_at_once(tls: TlsCell, ports: QdrantCells) -> None:
    url = f"https://127.0.0.1:{tls.port}"
    cell = registration(url, tls.authority)
    await ports.survey(cell)
    await ports.survey(replace(cell, api_key="another-key-with-32-characters-too!!"))
    assert set(tls.keys) == {KEY, "another-key-with-32-characters-too!!"}


async def test_what_an_edited_secret_left_behind_is_closed_once_nobody_can_be_using_it(tls: TlsCell) -> None:
    """Neither a replaced key's client nor one of a cell that is gone stays open; one in use does."""
    moment = 0.0
    ports = QdrantCells(timeout=1.0, now=lambda: moment)
    url = f"https://127.0.0.1:{tls.port}"
    old = registration(url, tls.authority)
    new = replace(old, api_key="another-key-with-32-characters-too!!")
    try:
        for cell in (old, new, replace(old, name="gone-1")):
            assert (await ports.survey(cell)).reachable
        replaced = ports._connections.get(old).client
        assert len(ports._connections) == 3
        for moment in (60.0, 110.0, 119.0):  # noqa: B007 - the adapter reads it
            assert (await ports.survey(new)).reachable
        assert len(ports._connections) == 3, "requests of a pass that began before the edit may be under way"
        moment = 131.0
        assert (await ports.survey(new)).reachable
        assert len(ports._connections) == 1
        await ports.close()
        assert replaced.http.client._async_client.is_closed
    finally:
        await ports.close()


async def test_a_refused_token_is_not_taken_for_a_wrong_key_of_the_cell() -> None:
    with pytest.raises(NotReady, match=r"answered 403 to search.*the tenant's token"):
        async with translated("eu-1", "search prod.shop.acme", refused=TENANT_TOKEN):
            raise answered(403)
    with pytest.raises(NotReady, match=r"Check apiKey in the cell's Secret"):
        async with translated("eu-1", "survey"):
            raise answered(403)


async def test_a_token_that_no_header_can_hold_fails_the_probe_alone(ports: QdrantCells) -> None:
    probe = await ports.probe_search(registration("http://127.0.0.1:1"), "prod.shop.acme", "lex-1", "to\ufffdken")
    assert (probe.ok, "no HTTP header may" in probe.error) == (False, True)


def answered(status: int, body: str = "no", **headers: str) -> UnexpectedResponse:
    return UnexpectedResponse(status, "reason", body.encode(), httpx.Headers(headers))


@pytest.mark.parametrize(
    ("raised", "kind", "retry_after"),
    [
        (answered(404), Missing, None),
        (answered(409), Taken, None),
        (answered(400, "Collection `a` already exists!"), Taken, None),
        (answered(400, "Wrong input"), Transient, None),
        (answered(401), NotReady, None),
        (answered(403), NotReady, None),
        (answered(429, "Retry-After".lower()), Transient, 1.0),
        (answered(429, **{"Retry-After": "9"}), Transient, 9.0),
        (answered(429, **{"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), Transient, 1.0),
        (answered(500), Transient, None),
        (answered(507), Full, None),
        (answered(500, "No space left on device: WAL buffer"), Full, None),
        (ResourceExhaustedResponse("slow down", 4), Transient, 4.0),
        (ConnectionResetError(), Silent, None),
        (TimeoutError(), Silent, None),
    ],
)
async def test_every_answer_has_one_meaning(
    raised: Exception, kind: type[ReconcileError], retry_after: float | None
) -> None:
    with pytest.raises(ReconcileError) as caught:
        async with translated("eu-1", "create a"):
            raise raised
    assert type(caught.value) is kind
    assert "eu-1" in caught.value.message
    if isinstance(caught.value, Transient):
        assert caught.value.retry_after == retry_after


async def test_what_is_no_answer_of_a_cell_is_not_translated() -> None:
    with pytest.raises(ZeroDivisionError):
        async with translated("eu-1", "create a"):
            raise ZeroDivisionError
