"""Looks for every key and token of a running platform in everything that people or other programs read."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Final

import httpx
import yaml

from searchops_sandbox.secrets_seen import SECRETS, secrets_in

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from searchops_sandbox.sandbox import Sandbox

READ_BY_PEOPLE: Final = (
    "/apis/searchops.dev/v1alpha1/searchtenants",
    "/apis/searchops.dev/v1alpha1/embeddingmodels",
    "/apis/searchops.dev/v1alpha1/reindexjobs",
    "/apis/events.k8s.io/v1/events",
    "/api/v1/events",
    "/api/v1/configmaps",
    "/api/v1/pods",
    "/api/v1/namespaces",
    "/apis/batch/v1/jobs",
    "/apis/coordination.k8s.io/v1/leases",
)
TOKEN_SHAPE: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ")

#: Manifests, reports and answers are shorter; what is longer is a model or a snapshot.
TEXT_BYTES: Final = 2 * 1024 * 1024
LOOKED_AT: Final = 8192

#: Tokens of one signer begin alike: a text without the beginning is not searched for each of them.
HEAD: Final = 16


async def secrets_of(sandbox: Sandbox) -> dict[str, str]:
    """Every secret value, by where it is kept: cells' keys, Secrets of every namespace, ServiceAccounts' tokens."""
    found = {f"cell {name}": cell.api_key for name, cell in sandbox.cells.items()}
    async with sandbox.api() as api:
        listed = await api.get(SECRETS)
    for item in listed["items"]:
        found |= secrets_in(item)
    for path in await asyncio.to_thread(_files, sandbox.folder, "*.kubeconfig"):
        for user in yaml.safe_load(path.read_text())["users"]:
            if "token" in user["user"]:
                found[f"{path.name} {user['name']}"] = user["user"]["token"]
    return {where: value for where, value in found.items() if value}


async def leaks(sandbox: Sandbox, *, pages: Iterable[str] = (), seen: Iterable[tuple[str, str]] = ()) -> list[str]:
    """Where a secret stands that should not: objects, events, pages, logs and artifacts; never the secret itself.

    Args:
        sandbox: whose objects, logs and artifact store are searched; a traceback stands in a log.
        pages: addresses that are scraped, such as metrics.
        seen: secrets that were there earlier, where they were kept and what they are.
    """
    texts: dict[str, str] = {}
    async with sandbox.api() as api:
        for path in READ_BY_PEOPLE:
            texts[path] = json.dumps(await api.get(path))
    async with httpx.AsyncClient(timeout=10.0) as client:
        for page in pages:
            texts[page] = (await client.get(page)).raise_for_status().text
    for log in await asyncio.to_thread(_files, sandbox.folder, "*.log"):
        texts[str(log)] = log.read_text(errors="replace")
    texts |= await asyncio.to_thread(written_texts, sandbox.artifacts)
    current = (await secrets_of(sandbox)).items()
    return await asyncio.to_thread(found_in, texts, [*current, *seen])


def found_in(texts: dict[str, str], secrets: Iterable[tuple[str, str]]) -> list[str]:
    """Which secret stands in which text; and what has a token's shape, whoever signed it.

    Args:
        texts: contents by where they stand.
        secrets: where each is kept and what it is; a value that comes again is told of by its first place.
    """
    places: dict[str, str] = {}
    for where, value in secrets:
        places.setdefault(value, where)
    heads: dict[str, list[str]] = {}
    for value in places:
        heads.setdefault(value[:HEAD], []).append(value)
    found = []
    for text, content in texts.items():
        for values in (values for head, values in heads.items() if head in content):
            found += [f"{places[value]} in {text}" for value in values if value in content]
        if TOKEN_SHAPE.search(content):
            found.append(f"a token in {text}")
    return found


def written_texts(folder: Path) -> dict[str, str]:
    """Every text of at most 2 MiB below a folder; what holds a NUL near its beginning is none."""
    texts: dict[str, str] = {}
    for path in _files(folder, "*"):
        try:
            content = path.read_bytes() if path.is_file() and path.stat().st_size <= TEXT_BYTES else b""
        except FileNotFoundError:  # removed meanwhile
            continue
        if content and b"\0" not in content[:LOOKED_AT]:
            texts[str(path)] = content.decode(errors="replace")
    return texts


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.rglob(pattern))
