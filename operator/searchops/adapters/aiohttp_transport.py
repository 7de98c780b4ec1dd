"""Requests over aiohttp's connections: a fifth of the CPU time that httpx's own transport takes for one.

Failures are httpx's, so that whoever reads them need not know the way. Where a kept connection turns out to be closed,
aiohttp sends GET, PUT and DELETE again by itself: fine for a read; a write whose effect is unknown must not be sent
twice, and goes through a transport that is told so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
from yarl import URL

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

CONNECTIONS = 100
UNSET = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
"""What aiohttp would add by itself; the request says all that there is to say."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, its body as it came."""

    status: int
    reason: str
    headers: tuple[tuple[bytes, bytes], ...]
    content: bytes


class Unanswered(aiohttp.ClientError):
    """A connection that broke off: not one of those failures after which aiohttp sends again."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends one request and reads the whole answer; raises what httpx's own transport raises.

    Args:
        verify: how certificates are checked.
        once: whether a request is sent once whatever happens, as a write has to be.
    """

    def __init__(self, verify: ssl.SSLContext, *, once: bool = False) -> None:
        self._verify = verify
        self._middlewares = (_once,) if once else ()
        self._session: aiohttp.ClientSession | None = None
        self._timeouts: dict[tuple[float | None, float | None], aiohttp.ClientTimeout] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer to a request of httpx, which decodes its body.

        Raises:
            httpx.TransportError: no answer, or not a whole one.
        """
        limits: dict[str, Any] = request.extensions.get("timeout", {})
        answer = await self.ask(
            request.method,
            str(request.url),
            request.headers.multi_items(),
            await request.aread(),
            connect=limits.get("connect"),
            read=limits.get("read"),
        )
        return response_of(answer)

    async def ask(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        *,
        connect: float | None = None,
        read: float | None = None,
    ) -> Answer:
        """One request.

        Args:
            method: HTTP method.
            url: quoted already.
            headers: all of them, but for those that follow from the connection and the body's length.
            body: may be empty.
            connect: seconds until the connection stands.
            read: seconds of silence after which there is no answer.

        Raises:
            httpx.TransportError: no answer, or not a whole one.
        """
        try:
            async with self._opened().request(
                method,
                URL(url, encoded=True),
                data=body or None,
                headers=headers,
                timeout=self._timeout(connect, read),
                allow_redirects=False,
            ) as answer:
                content = await answer.read()
                return Answer(answer.status, answer.reason or "", answer.raw_headers, content)
        except aiohttp.ConnectionTimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except aiohttp.ServerTimeoutError as error:
            raise httpx.ReadTimeout(str(error)) from error
        except aiohttp.ClientConnectorError as error:
            raise httpx.ConnectError(str(error)) from error
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # a host that no resolver takes is a UnicodeError
            raise httpx.ReadError(str(error) or type(error).__name__) from error

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        """Made at the first request, since it belongs to the event loop that it is made in."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=self._verify),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=UNSET,
                middlewares=self._middlewares,
            )
        return self._session

    def _timeout(self, connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
        found = self._timeouts.get((connect, read))
        if found is None:
            found = aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=read)
            self._timeouts[connect, read] = found
        return found


def response_of(answer: Answer) -> httpx.Response:
    """An answer as httpx has it."""
    return httpx.Response(answer.status, headers=list(answer.headers), stream=httpx.ByteStream(answer.content))


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Hides from aiohttp that the connection broke off, after which it would send again."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise Unanswered(str(error) or type(error).__name__) from error
