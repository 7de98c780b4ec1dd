"""A proxy between the adapter and a cell, which counts what is really sent and loses what it is told to lose."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal, get_args
from urllib.parse import unquote

import httpx

from searchops_sandbox.ports import free_port

How = Literal["reset-before", "reset-after", "error-before", "error-after", "half-after", "late-after"]
"""How a call fails: before it was passed on or after it took effect; reset, 503, half an answer, or none in time."""
HOWS: tuple[How, ...] = get_args(How)
READ_HOWS: tuple[How, ...] = ("reset-before", "error-before", "half-after")
"""Of a read, which has no effect to come before or after."""
LATE_SECONDS = 1.3
"""Longer than the clients under test wait."""


class Wire:
    """Counts what really goes to the cell: a proxy between the adapter and the double.

    Attributes:
        lose: by the number of a request that is no GET, whether its connection ends before or after its effect.
        lose_first: the same for the first request of each method and path; empty for none.
        requests: those that may change something, in order.
        answered: every request that was passed on, with the status of its answer, whatever the caller has seen of it.
        calls: every request that came, in order.
        fault: the number of the call that fails, and how.
        instead: by path, what is answered to a GET without asking the cell.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.requests: list[tuple[str, str]] = []
        self.answered: list[tuple[str, str, int]] = []
        self.calls: list[tuple[str, str]] = []
        self.fault: tuple[int, How] | None = None
        self.reads = 0
        self.instead: dict[str, bytes] = {}
        self.lose: dict[int, str] = {}
        self.lose_first = ""
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.port = free_port()
        self._client = httpx.AsyncClient(timeout=10, verify=False)  # noqa: S501 - plain HTTP on loopback

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._client.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, closed whole whatever happens: a socket left open fails a later, innocent test."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._pass_on(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the adapter gave up before it had asked
        finally:
            self._serving.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _lost(self) -> str:
        number = len(self.requests) - 1
        first = self.lose_first if self.requests.index(self.requests[number]) == number else ""
        return self.lose.get(number, first)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split("\r\n", 1)[0].split(" ")
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        headers = {key.lower(): value for key, value in headers.items()}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if method != "GET":
            self.requests.append((method, unquote(path.partition("?")[0])))
        else:
            self.reads += 1
        lost = self._lost() if method != "GET" else ""
        number = len(self.calls)
        self.calls.append((method, unquote(path.partition("?")[0])))
        how = self.fault[1] if self.fault is not None and self.fault[0] == number else None
        if lost == "before" or how == "reset-before":
            return
        if how == "error-before":
            await _unavailable(writer)
            return
        if method == "GET" and (said := self.instead.get(path)) is not None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(said), said))
            await writer.drain()
            return
        headers = {key: value for key, value in headers.items() if key in {"api-key", "authorization", "content-type"}}
        try:
            answer = await self._client.request(method, self.upstream + path, content=body, headers=headers)
            self.answered.append((method, unquote(path.partition("?")[0]), answer.status_code))
            if how == "late-after":
                await asyncio.sleep(LATE_SECONDS)
            if lost == "after" or how in ("reset-after", "late-after"):
                return
            if how == "error-after":
                await _unavailable(writer)
                return
            after = f"retry-after: {answer.headers['retry-after']}\r\n" if "retry-after" in answer.headers else ""
            kind = answer.headers.get("content-type", "application/json")
            writer.write(
                f"HTTP/1.1 {answer.status_code} X\r\ncontent-length: {len(answer.content)}\r\n{after}"
                f"content-type: {kind}\r\nconnection: close\r\n\r\n".encode()
                + (answer.content[: len(answer.content) // 2] if how == "half-after" else answer.content)
            )
            await writer.drain()
        except (httpx.HTTPError, ConnectionError):
            pass  # the answer was lost on purpose: the adapter sees a connection that ends


async def _unavailable(writer: asyncio.StreamWriter) -> None:
    body = b'{"status": {"error": "unavailable"}}'
    head = (
        f"HTTP/1.1 503 X\r\ncontent-length: {len(body)}\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
