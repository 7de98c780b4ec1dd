"""Shares of tenants' searches from a Prometheus, or what speaks its HTTP API: one query a window, for all tenants.

Windows are asked for as of their own end, so that the answer to a question never changes and needs no offsets. What is
no number, no tenant or no vector is no answer: an unknown share is never taken for none.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import TYPE_CHECKING, Any

import aiohttp

from searchops.api.live_signals import (
    BUCKETS,
    EMPTY_SEARCHES,
    FAILED_SEARCHES,
    SEARCH_SECONDS,
    TENANT_LABEL,
    Share,
)
from searchops.runtime.errors import Transient, describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from searchops.api.live_signals import Window

QUERY_SECONDS = 5.0
MAX_ANSWER_BYTES = 16_777_216
"""Ten thousand tenants take two megabytes."""
AT_ONCE = 4
NAMED_TENANTS = 100
"""Up to so many tenants are named in the query; for more, every tenant is read and the others are left out."""
PART_LABEL = "part"
MAX_TOKEN_BYTES = 8192


class PrometheusSignals:
    """Reads live signals.

    Args:
        url: base address; ``/api/v1/query`` comes after it.
        token_file: holds a bearer token, read anew for each query since it may be rotated; None sends none.
        matchers: labels that every series must carry, to tell this fleet's gateways from others'.
        seconds: deadline of a query.
        limit: bytes of the largest answer that is read.
    """

    def __init__(
        self,
        url: str,
        *,
        token_file: Path | None = None,
        matchers: Mapping[str, str] | None = None,
        seconds: float = QUERY_SECONDS,
        limit: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._url = f"{url.rstrip('/')}/api/v1/query"
        self._token_file = token_file
        self._matchers = dict(matchers or {})
        self._seconds = seconds
        self._limit = limit
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def shares(self, window: Window, tenants: Sequence[str]) -> dict[str, Share]:
        """The share of each of the tenants in a window; those that Prometheus does not know are absent.

        Args:
            window: which signal, and which hours.
            tenants: values of the label ``tenant``.

        Raises:
            Transient: no answer within the deadline, or none that tells.
        """
        form = {
            "query": query_of(window, tenants, self._matchers),
            "time": str(int(window.end.timestamp())),
            "timeout": f"{self._seconds:g}s",
        }
        async with self._slots:
            content = await self._ask(form)
        wanted = set(tenants)
        return {tenant: share for tenant, share in _shares(content, self._url).items() if tenant in wanted}

    async def _ask(self, form: Mapping[str, str]) -> bytes:
        headers = self._authorization()
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._opened().post(self._url, data=form, headers=headers, allow_redirects=False) as answer,
            ):
                content = await self._read(answer)
                if answer.status != 200:
                    raise _unread(self._url, f"HTTP {answer.status}: {_said(content)}")
                return content
        except TimeoutError as error:
            raise _unread(self._url, f"no answer within {self._seconds:g} s") from error
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            raise _unread(self._url, str(error) or type(error).__name__) from error

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        content = bytearray()
        async for chunk in answer.content.iter_chunked(65_536):
            content += chunk
            if len(content) > self._limit:
                raise _unread(self._url, f"an answer of more than {self._limit} bytes")
        return bytes(content)

    def _authorization(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            with self._token_file.open(encoding="ascii") as file:
                token = file.read(MAX_TOKEN_BYTES).strip()
        except (OSError, UnicodeError) as error:
            seen = f"SEARCHOPS_PROMETHEUS_TOKEN_FILE {self._token_file} cannot be read ({type(error).__name__})"
            raise Transient(describe(seen, wanted="a file with one bearer token")) from error
        if not token or not token.isprintable() or " " in token:
            seen = f"SEARCHOPS_PROMETHEUS_TOKEN_FILE {self._token_file} holds no token"
            raise Transient(describe(seen, wanted="one bearer token"))
        return {"Authorization": f"Bearer {token}"}

    def _opened(self) -> aiohttp.ClientSession:
        """Made at the first query, since it belongs to the event loop that it is made in."""
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._session


def query_of(window: Window, tenants: Sequence[str], matchers: Mapping[str, str]) -> str:
    """The query of a window: two vectors over tenants, told apart by the label ``part``."""
    labels = [f"{name}={quoted(value)}" for name, value in sorted(matchers.items())]
    if len(tenants) <= NAMED_TENANTS:
        labels.append(f"{TENANT_LABEL}=~{quoted('|'.join(map(_literal, sorted(tenants))))}")
    span = f"[{window.hours}h]"
    every = _summed(f"{SEARCH_SECONDS}_count", labels, span)
    match window.signal:
        case "ZeroResults":
            part = _summed(EMPTY_SEARCHES, labels, span)
        case "Errors":
            part = _summed(FAILED_SEARCHES, labels, span)
        case "SlowSearches":
            if window.slower_than is None:
                raise Transient(describe("signal SlowSearches has no bound", wanted="slowerThan", next_step="Set it."))
            bound = quoted(BUCKETS[window.slower_than])
            quick = _summed(f"{SEARCH_SECONDS}_bucket", [*labels, f"le={bound}"], span)
            part = f"{every} - {quick}"
    return f"{_named(every, 'of')} or {_named(part, 'part')}"


def _summed(metric: str, labels: Sequence[str], span: str) -> str:
    """Over all replicas of the gateway, and over their restarts."""
    return f"sum by ({TENANT_LABEL}) (increase({metric}{{{','.join(labels)}}}{span}))"


def _named(vector: str, part: str) -> str:
    return f'label_replace({vector}, "{PART_LABEL}", "{part}", "", "")'


def quoted(value: str) -> str:
    r"""A PromQL string. Its escapes are those of Go, of which JSON's are a part but for ``\/``, which is never written.

    Half of a surrogate pair, which no UTF-8 holds, is replaced.
    """
    return json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False)


def _literal(text: str) -> str:
    """A tenant's label in a regular expression: letters, digits, hyphens, and dots, of which only these mean more."""
    return text.replace(".", "[.]")


def _shares(content: bytes, url: str) -> dict[str, Share]:
    parts: dict[str, dict[str, float]] = {"of": {}, "part": {}}
    try:
        document = json.loads(content)
        if document["status"] != "success" or document["data"]["resultType"] != "vector":
            raise ValueError("it holds no vector")
        if document.get("warnings"):  # a store of several may leave a part out and say so here only
            raise ValueError(f"it may be a part only: {str(document['warnings'])[:60]}")
        for row in document["data"]["result"]:
            labels, value = row["metric"], float(row["value"][1])
            if not math.isfinite(value):
                raise ValueError("a value is not finite")
            parts[labels[PART_LABEL]][labels[TENANT_LABEL]] = value
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise _unread(url, f"an answer that cannot be used ({type(error).__name__}: {str(error)[:100]})") from error
    return {
        tenant: Share(of, parts["part"][tenant])
        for tenant, of in parts["of"].items()
        if of >= 0 and tenant in parts["part"]
    }


def _unread(url: str, seen: str) -> Transient:
    return Transient(describe(f"Prometheus {url}: {seen}", wanted="the answer to an instant query"))


def _said(content: bytes) -> str:
    """Prometheus's own words where it has any."""
    try:
        document: Any = json.loads(content)
        said = str(document["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        said = content.decode(errors="replace")
    return " ".join(said.split())[:200]
