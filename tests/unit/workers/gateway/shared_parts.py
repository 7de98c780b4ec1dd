"""Tenants of shared collections as the operator writes them, on labelled doubles of cells."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import jwt

from searchops.api.retrieval import BINDING_KEY, PENDING_KEY, PREVIOUS_KEY, Binding, FieldRoles, RetrievalProfile
from searchops.api.shared import NameRecord, SliceRecord, TenantRecord, record_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from searchops.api.shared import SharedTier
    from searchops_workers.gateway.cells import Credential
    from searchops_workers.gateway.problems import Problem

KEY = "the-fleets-gateway-key-of-32-bytes!!"
OTHER_KEY = "another-gateway-key-that-is-32-bytes!"
CELL_TOKEN = "the-gateways-own-token-on-the-cell"
REGISTER = "prod@tokens"
COLLECTIONS = ("prod@shared-1", "prod@shared-2")
TENANT = "m.acme"
ALIAS = "prod.m.acme"
UID = "uid-acme"


def claims(**changes: Any) -> dict[str, Any]:
    """Claims of an Index token of the tenant as the operator signs them; None takes one away."""
    found: dict[str, Any] = {
        "exp": int(time.time()) + 600,
        "access": [{"collection": name, "access": "prw"} for name in (ALIAS, f"{ALIAS}@a", f"{ALIAS}@b")],
        "subject": f"{UID}/indexer",
        "cell": "eu-1",
        "enforcedBy": "Gateway",
        "value_exists": {"collection": REGISTER, "matches": [{"key": "token", "value": f"{UID}/indexer/1"}]},
        **changes,
    }
    return {name: value for name, value in found.items() if value is not None}


def token(*, key: str = KEY, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm)


def credentials(path: Path, *, keys: Sequence[str] = (KEY,), **cell: Any) -> Path:
    """The operator's file for the gateway."""
    held = {"token": CELL_TOKEN, "collections": list(COLLECTIONS), "registerName": REGISTER, **cell}
    path.write_text(json.dumps({"keys": list(keys), "cells": {"eu-1": held}}))
    return path


def binding(revision: str | None, side: str | None = None) -> Binding:
    return Binding(
        revision=revision,
        encoder=revision,
        vector=f"d-{revision}" if revision else None,
        dimension=2 if revision else None,
        profile=RetrievalProfile(name="plain"),
        fields=FieldRoles(code=("sku",), filter=("price", "colour")),
        side=side,
    )


def held(
    key: str, bound: Binding | None = None, pending: Binding | None = None, previous: Binding | None = None
) -> SliceRecord:
    """A slice with the flat keys that a collection of its own would carry."""
    keys = {BINDING_KEY: bound, PENDING_KEY: pending, PREVIOUS_KEY: previous}
    return SliceRecord(key=key, metadata={name: one.to_metadata() for name, one in keys.items() if one is not None})


def record(
    slices: Mapping[int, SliceRecord],
    names: Mapping[str, tuple[int, int]],
    *,
    alias: str = ALIAS,
    tier: SharedTier = "Shared",
) -> TenantRecord:
    """A tenant's record; names by suffix, with generation and turn."""
    moves = {suffix: NameRecord(generation=number, turn=turn) for suffix, (number, turn) in names.items()}
    return TenantRecord(tier=tier, alias=alias, slices=dict(slices), names=moves)


class FakeCells:
    """A labelled double of the cells: metadata by collection, values of the register, and who asked for what.

    Attributes:
        failing: collections that cannot be read or written, and with which problem.
        sent: what was asked of points and written, by collection.
    """

    def __init__(self) -> None:
        self.metadata: dict[str, dict[str, str]] = {name: {} for name in COLLECTIONS}
        self.registered = {f"{UID}/indexer/1"}
        self.failing: dict[str, Problem] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.now = 0.0

    def put(self, collection: str, written: TenantRecord | None, uid: str = UID) -> None:
        """One PATCH of the operator's."""
        if written is None:
            self.metadata[collection].pop(record_key(uid), None)
        else:
            self.metadata[collection][record_key(uid)] = written.to_metadata()

    def asked_for(self, kind: str) -> list[str]:
        return [name for what, name, _ in self.asked if what == kind]

    @asynccontextmanager
    async def calling(self, credential: Credential) -> AsyncIterator[Any]:
        yield _Client(self, credential.token)


class _Client:
    def __init__(self, cells: FakeCells, used: str) -> None:
        self._cells, self._used = cells, used

    def _asked(self, what: str, name: str) -> None:
        self._cells.asked.append((what, name, self._used))
        if name in self._cells.failing:
            raise self._cells.failing[name]

    async def get_collection(self, name: str) -> Any:
        self._asked("metadata", name)
        return SimpleNamespace(config=SimpleNamespace(metadata=dict(self._cells.metadata[name])), points_count=99)

    async def scroll(self, name: str, *, scroll_filter: Any, limit: int, with_payload: bool) -> tuple[list[Any], None]:
        self._asked("register", name)
        (condition,) = scroll_filter.must
        assert (condition.key, limit, with_payload) == ("token", 1, False)
        return ([object()] if condition.match.value in self._cells.registered else []), None

    async def count(self, name: str, **arguments: Any) -> Any:
        self._asked("count", name)
        return SimpleNamespace(count=len(self._cells.asked_for("count")))

    async def query_batch_points(self, name: str, requests: Sequence[Any], **arguments: Any) -> list[Any]:
        self._asked("query", name)
        self._cells.sent.append((name, {"requests": requests}))
        return [SimpleNamespace(points=[]) for _ in requests]

    async def upsert(self, name: str, points: Sequence[Any], **arguments: Any) -> None:
        self._asked("upsert", name)
        self._cells.sent.append((name, {"points": points, **arguments}))
