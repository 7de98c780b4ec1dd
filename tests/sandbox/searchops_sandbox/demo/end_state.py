"""Where a platform stands, in plain values by which two runs can be compared: no time, uid or count of passes."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import aiohttp

from searchops_sandbox.demo.platform import FLEET
from searchops_sandbox.registration import NAMESPACE

if TYPE_CHECKING:
    from searchops_sandbox.demo.platform import Platform
    from searchops_sandbox.qdrant.cell import QdrantCell

Json = dict[str, Any]
PAGE = 100
TASK_LABEL = "searchops.dev/task"


async def end_state(platform: Platform) -> Json:
    """Objects' meaning, Jobs ever made, collections with their vectors and counts, and what Triton serves."""
    models, tenants, reindexes = await asyncio.gather(
        *(platform.objects(plural) for plural in ("embeddingmodels", "searchtenants", "reindexjobs"))
    )
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout) as session, platform.sandbox.api() as api:
        jobs = await api.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs")
        return {
            "models": {item["metadata"]["name"]: _model(item["status"]) for item in models},
            "tenants": {item["metadata"]["name"]: _tenant(item["status"]) for item in tenants},
            "reindexes": sorted(
                (item["spec"]["tenant"], item["spec"]["revision"], item["status"]["phase"]) for item in reindexes
            ),
            "jobs": dict(Counter(item["metadata"]["labels"][TASK_LABEL] for item in jobs["items"])),
            "cells": {name: await _cell(session, cell) for name, cell in platform.sandbox.cells.items()},
            "served": {
                server.name: await _served(session, server.http_url)
                for servers in platform.sandbox.pools.values()
                for server in servers
            },
        }


async def points_of(cell: QdrantCell, collection: str) -> list[Json]:
    """Every point of a collection with payload and vectors.

    Raises:
        ValueError: there are more than a page of them.
    """
    body = {"limit": PAGE, "with_payload": True, "with_vector": True}
    async with aiohttp.ClientSession() as session:
        answer = await _ask(session, cell, "POST", f"/collections/{collection}/points/scroll", body)
    if answer.get("next_page_offset") is not None:
        raise ValueError(f"{collection} holds more than {PAGE} points; wanted a page of the demo's size")
    return list(answer["points"])


def _model(status: Json) -> Json:
    return {
        "phase": status["phase"],
        "active": status["active"]["revision"],
        "candidate": status.get("candidate"),
        "wave": status.get("wave"),
        "retiring": [item["revision"] for item in status.get("retiring", [])],
        "rejected": [(item["revision"], item["outcome"]) for item in status.get("rejected", [])],
        "history": [(item["revision"], item["event"]) for item in status["history"]],
        "nextNumber": status["nextNumber"],
        "tenants": {key: count for key, count in status["tenants"].items() if count},
        "conditions": _conditions(status),
    }


def _tenant(status: Json) -> Json:
    return {
        "phase": status["phase"],
        "cell": status["cell"],
        "collection": status["collection"],
        "revision": status["binding"]["revision"],
        "vector": status["binding"]["vector"],
        "previous": status.get("previous", {}).get("revision"),
        "rebuild": status.get("rebuild"),
        "conditions": _conditions(status),
    }


def _conditions(status: Json) -> Json:
    return {item["type"]: item["status"] for item in status["conditions"]}


async def _cell(session: aiohttp.ClientSession, cell: QdrantCell) -> Json:
    listed = await _ask(session, cell, "GET", "/collections")
    aliases = await _ask(session, cell, "GET", "/aliases")
    names = sorted(item["name"] for item in listed["collections"])
    collections = {}
    for name in names:
        if not name.startswith(f"{FLEET}."):
            continue  # the cell's own
        found = await _ask(session, cell, "GET", f"/collections/{name}")
        collections[name] = {
            "points": found["points_count"],
            "vectors": sorted(found["config"]["params"]["vectors"]),
        }
    return {
        "collections": collections,
        "aliases": {item["alias_name"]: item["collection_name"] for item in aliases["aliases"]},
    }


async def _served(session: aiohttp.ClientSession, url: str) -> list[str]:
    async with session.post(f"{url}/v2/repository/index", json={}) as answer:
        return sorted(item["name"] for item in await answer.json(content_type=None) if item.get("state") == "READY")


async def _ask(
    session: aiohttp.ClientSession, cell: QdrantCell, method: str, path: str, body: Json | None = None
) -> Json:
    url, headers = f"{cell.rest_url}{path}", {"api-key": cell.api_key}
    async with session.request(method, url, headers=headers, json=body, raise_for_status=True) as answer:
        content = await answer.json(content_type=None)
    result: Json = content["result"]
    return result
