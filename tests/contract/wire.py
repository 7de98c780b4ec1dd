"""A proxy between the adapter and a cell, which counts what is really sent and loses what it is told to lose."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import unquote

import httpx

from searchops_sandbox.processes import free_port


class Wire:
    """Counts what really goes to the cell: a proxy between the adapter and the double.

    Attributes:
        lose: by the number of a request that is no GET, whether its connection ends before or after its effect.
        lose_first: the same for the first request of each method and path; empty for none.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.requests: list[tuple[str, str]] = []
        self.reads = 0
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
        if lost == "before":
            return
        headers = {key: value for key, value in headers.items() if key in {"api-key", "content-type"}}
        try:
            answer = await self._client.request(method, self.upstream + path, content=body, headers=headers)
            if lost == "after":
                return
            after = f"retry-after: {answer.headers['retry-after']}\r\n" if "retry-after" in answer.headers else ""
            kind = answer.headers.get("content-type", "application/json")
            writer.write(
                f"HTTP/1.1 {answer.status_code} X\r\ncontent-length: {len(answer.content)}\r\n{after}"
                f"content-type: {kind}\r\nconnection: close\r\n\r\n".encode()
                + answer.content
            )
            await writer.drain()
        except (httpx.HTTPError, ConnectionError):
            pass  # the answer was lost on purpose: the adapter sees a connection that ends
