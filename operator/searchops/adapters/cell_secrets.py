"""A cell as its Secret registers it. What cannot be used is a cell too, with the problem in its place.

Were such a Secret left out, its tenants would be taken for tenants of a cell that is gone: a deletion would let go
of data and alias, and a restored tenant would be placed beside its own data.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from searchops.api.observed import CellRegistration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_MAX_COLLECTIONS = 1000
MOST_COLLECTIONS = 1_000_000
MOST_PORT = 65_535
KEYS = ("apiKey", "altApiKey")
LONGEST_LABEL = 63


def read_cell(
    raw: Mapping[str, Any], *, draining: bool, addresses: Callable[[Mapping[str, str]], tuple[str, ...]]
) -> CellRegistration:
    """The registration, with its `problem` where the Secret cannot be used.

    Args:
        raw: the Secret.
        draining: whether it takes no new tenant.
        addresses: the nodes behind the Service that the data names; none where it names none.
    """
    name, labels = raw["metadata"]["name"], dict(raw["metadata"].get("labels") or {})
    try:
        return _cell(name, labels, decoded(raw), draining=draining, addresses=addresses)
    except ValueError as error:
        problem = f"Secret {name} cannot be used: {error}; correct it"
        return CellRegistration(name, labels, (), None, DEFAULT_MAX_COLLECTIONS, draining=draining, problem=problem)


def decoded(raw: Mapping[str, Any]) -> dict[str, str]:
    """A Secret's data as texts.

    Raises:
        ValueError: naming the key whose value is none.
    """
    found = {}
    for key, value in (raw.get("data") or {}).items():
        try:
            found[key] = base64.b64decode(value, validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError) as error:
            kind = "text in UTF-8" if isinstance(error, UnicodeDecodeError) else "base64"
            raise ValueError(f"the value of {key} is no {kind}") from error
    return found


def number_of(data: Mapping[str, str], key: str, most: int) -> int | None:
    """A positive whole number; None where the key is not set.

    Raises:
        ValueError: naming key, value and bounds.
    """
    text = data.get(key)
    if not text:
        return None
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(most)) else 0
    if not 1 <= number <= most:
        raise ValueError(f"{key} is {text!r:.40}; wanted a whole number from 1 to {most}")
    return number


def _cell(
    name: str,
    labels: Mapping[str, str],
    data: Mapping[str, str],
    *,
    draining: bool,
    addresses: Callable[[Mapping[str, str]], tuple[str, ...]],
) -> CellRegistration:
    for key in KEYS:
        if not all("!" <= char <= "~" for char in data.get(key, "")):
            raise ValueError(f"{key} holds characters that no HTTP header may; wanted printable ASCII, no space")
    urls = tuple(data.get("nodes", "").split())
    for url in urls:
        _check_url(url)
    return CellRegistration(
        name=name,
        labels=labels,
        urls=urls or addresses(data),
        grpc_port=number_of(data, "grpcPort", MOST_PORT),
        max_collections=number_of(data, "maxCollections", MOST_COLLECTIONS) or DEFAULT_MAX_COLLECTIONS,
        adoptable=frozenset(data.get("adoptable", "").split()),
        draining=draining,
        ca_cert=data.get("caCert") or None,
        api_key=data.get("apiKey", ""),
        alt_api_key=data.get("altApiKey", ""),
    )


def _check_url(url: str) -> None:
    """Refuse what no connection can be opened to; an address may carry a secret, so none is shown whole."""
    wanted = "wanted http://host:port or https://host:port, several parted by spaces"
    if "@" in url:
        raise ValueError(f"nodes holds an address with a user or password, which is a key's place; {wanted}")
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"nodes holds an address that is none ({error}); {wanted}") from error
    if scheme not in ("http", "https"):
        raise ValueError(f"nodes holds {url!r:.80}, which is neither http nor https; {wanted}")
    labels = host.removesuffix(".").split(".")
    if not host.isascii() or not host.isprintable() or not all(1 <= len(label) <= LONGEST_LABEL for label in labels):
        raise ValueError(f"nodes holds {url!r:.80}, whose host is none; {wanted}")
    if port == 0 or parts.query or parts.fragment:
        raise ValueError(f"nodes holds {url!r:.80}, with port 0, a query or a fragment; {wanted}")
