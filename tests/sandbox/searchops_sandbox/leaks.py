"""Looks for every key and token of a running platform in everything that people or other programs read."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import TYPE_CHECKING, Final

import httpx
import yaml

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
    "/apis/batch/v1/jobs",
)
GATEWAY_FILE: Final = "credentials.json"
SECRET_KEYS: Final = ("token", "apiKey", "altApiKey")
TOKEN_SHAPE: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ")


async def secrets_of(sandbox: Sandbox) -> dict[str, str]:
    """Every secret value, by where it is kept: cells' keys, Secrets of every namespace, ServiceAccounts' tokens."""
    found = {f"cell {name}": cell.api_key for name, cell in sandbox.cells.items()}
    async with sandbox.api() as api:
        listed = await api.get("/api/v1/secrets")
    for item in listed["items"]:
        for key in SECRET_KEYS:
            if key in item.get("data", {}):
                where = f"{item['metadata']['namespace']}/{item['metadata']['name']}.{key}"
                found[where] = base64.b64decode(item["data"][key]).decode()
        if GATEWAY_FILE in item.get("data", {}):
            credentials = json.loads(base64.b64decode(item["data"][GATEWAY_FILE]))
            found |= {f"gateway key {number}": key for number, key in enumerate(credentials["keys"])}
            found |= {f"gateway token of {cell}": one["token"] for cell, one in credentials["cells"].items()}
    for path in await asyncio.to_thread(_files, sandbox.folder, "*.kubeconfig"):
        for user in yaml.safe_load(path.read_text())["users"]:
            if "token" in user["user"]:
                found[f"{path.name} {user['name']}"] = user["user"]["token"]
    return {where: value for where, value in found.items() if value}


async def leaks(sandbox: Sandbox, *, pages: Iterable[str] = ()) -> list[str]:
    """Where a secret stands that should not: objects, events, pages and logs; never the secret itself.

    Args:
        sandbox: whose objects and logs are searched; a traceback stands in a log.
        pages: addresses that are scraped, such as metrics.
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
    secrets = await secrets_of(sandbox)
    found = [f"{where} in {text}" for where, value in secrets.items() for text in texts if value in texts[text]]
    return found + [f"a token in {text}" for text, content in texts.items() if TOKEN_SHAPE.search(content)]


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.rglob(pattern))
