"""An operator that is killed at eleven random moments of the demo ends where one that was left alone ends.

The moments follow from a seed: ``SEARCHOPS_E2E_SEED=7`` plays others, ``SEARCHOPS_E2E_KILLS=0`` plays the same story
with an operator that is left alone; what is asserted of the end is one and the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
import yaml

from searchops_sandbox.demo.buckets import CATALOGUES, EXAMPLES, MODELS
from searchops_sandbox.demo.end_state import end_state, points_of
from searchops_sandbox.demo.kills import draw, killed
from searchops_sandbox.demo.platform import FLEET, Platform
from searchops_sandbox.demo.shoppers import MERCHANTS
from searchops_sandbox.demo.story import MODEL, Story
from searchops_sandbox.fixtures.tenants import DEMO_TENANTS
from searchops_sandbox.leaks import leaks
from searchops_sandbox.sandbox import Sandbox
from searchops_workers.encoders.onnx_runtime import OnnxEncoder
from searchops_workers.retrieval.documents import render

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(1500)]

SEED = int(os.environ.get("SEARCHOPS_E2E_SEED", "20261124"))
KILLS = int(os.environ.get("SEARCHOPS_E2E_KILLS", "11"))
NAMES = sorted(tenant.name for tenant in DEMO_TENANTS)
TENANT_CONDITIONS = (
    "AccessReady",
    "ModelBound",
    "Placed",
    "Provisioned",
    "QuotaOK",
    "Ready",
    "SchemaInSync",
    "Searchable",
)
PARTS = ("", "-enc", "-tok")
SETTLED_SECONDS = 120.0
STAYS_SECONDS = 5.0
SAME_COSINE = 0.9999


async def test_killed_eleven_times_nothing_changes_in_the_end_state() -> None:
    moments = draw(SEED)[:KILLS]
    sandbox = Sandbox()
    platform = Platform(sandbox)
    async with platform:
        story = Story(platform, say=_say, patient=True)
        async with killed(platform, story.view, moments) as killer:
            outcome = await story.tell()
        _say(f"seed {SEED}:\n" + "\n".join(f"  {moment}; the model was at {seen}" for moment, seen in killer.done))
        assert [moment for moment, _ in killer.done] == list(moments)
        revisions = _revisions()
        assert (outcome.promoted, outcome.rejected) == (revisions[:3], revisions[3:])
        assert (outcome.tenants_ready, outcome.lost_searches_during_flips) == (len(NAMES), 0)
        assert outcome.searches_ok == outcome.searches_total > 0
        assert story.shoppers.asked > 0
        await _ends_as_undisturbed(platform, revisions)
        for name in NAMES:
            await _no_point_is_lost(platform, name, revisions[2])
        async with story.shoppers:
            await story.check_searches(story.searches)
        assert await leaks(sandbox, seen=platform.secrets_seen) == []
    assert _processes_of(sandbox.folder) == []


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _revisions() -> list[str]:
    """Names of the four revisions: numbers in the order of the commits, none used twice or left out."""
    files = [EXAMPLES / "models" / f"shop-encoder-{name}.yaml" for name in MODELS]
    digests = [yaml.safe_load(file.read_text())["spec"]["source"]["digest"] for file in files]
    return [f"{MODEL}-r{n}-{digest.removeprefix('sha256:')[:8]}" for n, digest in enumerate(digests, start=1)]


async def _ends_as_undisturbed(platform: Platform, revisions: list[str]) -> None:
    """The end comes, and it is the end: some seconds later nothing has moved any more."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while True:
        seen = await end_state(platform)
        wanted = _wanted(revisions, seen)
        if seen == wanted or time.monotonic() > deadline:
            break
        await asyncio.sleep(1.0)
    assert seen == wanted, f"{_differing(seen, wanted)}\n{platform.tail()}"
    await asyncio.sleep(STAYS_SECONDS)
    later = await end_state(platform)
    assert later == _wanted(revisions, later), _differing(later, wanted)


def _differing(seen: Any, wanted: Any, path: str = "") -> list[str]:
    """Where the two differ, each as a path with both sides."""
    if not (isinstance(seen, dict) and isinstance(wanted, dict)):
        return [] if seen == wanted else [f"{path}: {seen!r}, wanted {wanted!r}"]
    keys = sorted(seen.keys() | wanted.keys())
    return [line for key in keys for line in _differing(seen.get(key), wanted.get(key), f"{path}/{key}")]


def _wanted(revisions: list[str], seen: dict[str, Any]) -> dict[str, Any]:
    """What a run that nobody disturbs ends with; only cells and the ids of the two spaces are taken from what was seen.

    r2 is in r1's space, so tenants were filled twice, and hold the vectors of two spaces for the rollback window.
    """
    r1, r2, r3, _ = revisions
    first, second = _spaces(seen)
    placed = {name: tenant["cell"] for name, tenant in seen["tenants"].items()}
    return {
        "models": {MODEL: _wanted_model(revisions)},
        "tenants": {
            name: {
                "phase": "Ready",
                "cell": placed[name],
                "collection": f"{_alias(name)}@g1",
                "revision": r3,
                "vector": second,
                "previous": r2,
                "rebuild": None,
                "conditions": _wanted_conditions(seen["tenants"][name]["conditions"]),
            }
            for name in NAMES
        },
        "reindexes": sorted((name, revision, "Switched") for name in NAMES for revision in (r1, r3)),
        "jobs": {"build": 4, "evaluate": 5, "reindex": 2 * len(NAMES)},
        "cells": {
            cell: _wanted_cell([name for name in NAMES if placed[name] == cell], sorted((first, second)))
            for cell in ("eu-1", "us-1")
        },
        "served": {
            "default-0": sorted(f"{revision}{part}" for revision in (r1, r2, r3) for part in PARTS),
            "canary-0": sorted(f"{r3}{part}" for part in PARTS),
        },
    }


def _alias(name: str) -> str:
    return f"{FLEET}.{MERCHANTS}.{name}"


def _wanted_model(revisions: list[str]) -> dict[str, Any]:
    r1, r2, r3, r4 = revisions
    return {
        "phase": "Promoted",
        "active": r3,
        "candidate": None,
        "wave": None,
        "retiring": [r1, r2],
        "rejected": [(r4, "Regressed")],
        "history": [(r1, "Promoted"), (r2, "Promoted"), (r3, "Promoted"), (r4, "Rejected")],
        "nextNumber": 5,
        "tenants": {"total": len(NAMES), "bound": len(NAMES)},
        "conditions": dict.fromkeys(("GatePassed", "Progressing", "Ready", "RollbackReady", "ServersInSync"), "True"),
    }


def _wanted_conditions(seen: dict[str, str]) -> dict[str, str]:
    """Whether the isolation canary has had its turn with a tenant, which has one in six hours, is a matter of luck."""
    turn = {"Isolated": "True"} if "Isolated" in seen else {}
    return {**dict.fromkeys(TENANT_CONDITIONS, "True"), "BackupFresh": "Unknown", **turn}


def _wanted_cell(names: list[str], vectors: list[str]) -> dict[str, Any]:
    """Each tenant's collection with every product of its catalogue, behind its two aliases."""
    products = {name: len((CATALOGUES / f"{name}.jsonl").read_text().splitlines()) for name in names}
    return {
        "collections": {f"{_alias(name)}@g1": {"points": products[name], "vectors": vectors} for name in names},
        "aliases": {alias: f"{_alias(name)}@g1" for name in names for alias in (_alias(name), f"{_alias(name)}@b")},
    }


def _spaces(seen: dict[str, Any]) -> tuple[str, str]:
    """The vectors of the first and the second space: two, the same two at every tenant."""
    second = {tenant["vector"] for tenant in seen["tenants"].values()}
    collections = [item for cell in seen["cells"].values() for item in cell["collections"].values()]
    both = {vector for item in collections for vector in item["vectors"]}
    assert len(second) == 1, second
    assert len(both) == 2, both
    (first,) = both - second
    return first, *second


async def _no_point_is_lost(platform: Platform, name: str, revision: str) -> None:
    """Every product of the catalogue is stored once, with the vector that the active model gives its text."""
    tenant = next(item for item in await platform.objects("searchtenants") if item["metadata"]["name"] == name)
    status = tenant["status"]
    points = await points_of(platform.sandbox.cells[status["cell"]], status["collection"])
    products = [json.loads(line) for line in (CATALOGUES / f"{name}.jsonl").read_text().splitlines()]
    assert sorted(point["payload"]["id"] for point in points) == sorted(item["id"] for item in products)
    encoder = OnnxEncoder.open(platform.sandbox.artifacts / "models" / MODEL / revision)
    texts = [render(tenant["spec"]["document"], point["payload"]) for point in points]
    fresh = np.asarray(await encoder.encode(texts))
    stored = np.asarray([point["vector"][status["binding"]["vector"]] for point in points])
    cosines = (stored * fresh).sum(axis=1) / np.linalg.norm(stored, axis=1)
    assert cosines.min() > SAME_COSINE


def _processes_of(folder: Path) -> list[str]:
    """Processes whose command or environment names the sandbox's folder."""
    left = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if any(str(folder) in word for word in words):
            left.append(" ".join(process.cmdline())[:200])
    return left
