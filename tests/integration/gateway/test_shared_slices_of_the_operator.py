"""The gateway on what the operator's own code makes: slices, register, credentials, tokens, rebuilds, tiers."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from integration.gateway.gateway_parts import ANALYSER, KEY, PRODUCTS, dense, gateway
from searchops.adapters.qdrant import QdrantCells
from searchops.adapters.qdrant_tokens import QdrantTokens
from searchops.adapters.shared_cells import SharedCells
from searchops.adapters.tokens import CellKeySigner
from searchops.api.observed import CellIdentity, CellRegistration, CollectionDesign, TokenGrant
from searchops.api.retrieval import BINDING_KEY, PENDING_KEY, PREVIOUS_KEY, Binding
from searchops.api.shared import CellCredential, GatewayCredentials
from searchops.api.v1alpha1.search_tenant import AccessEntry
from searchops.planning.gateway_credentials import CredentialSettings, claimed, plan_credentials
from searchops.planning.names import slice_key, tokens_collection
from searchops.planning.schema import SHARED_STRICT, Owner, side_of
from searchops.planning.tenant_access import token_claims
from searchops.planning.token_register import grant_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from searchops.api.observed import Tier
    from searchops_sandbox.qdrant.cell import QdrantCell

FLEET_KEY = "the-fleets-gateway-key-of-32-bytes!!"
LIFETIME = timedelta(days=30)
ENTRIES = {
    "prw": AccessEntry(name="indexer", role="Index", secret_name="acme-indexer"),
    "r": AccessEntry(name="shop", role="Search", secret_name="acme-shop"),
}
SEARCH = {"query": "shirt"}


class Operator:
    """What the operator does to a cell, step by step, with its own adapters and plans."""

    def __init__(self, cell: QdrantCell, folder: Path, tier: Tier) -> None:
        self.fleet = f"f{uuid.uuid4().hex[:8]}"
        self.tier: Tier = tier
        self.raw = QdrantCells()
        self.cells = SharedCells(
            self.raw, fleet=self.fleet, tenants_each=10, slice_key=slice_key, indexing_threshold=10_000
        )
        self.tokens = QdrantTokens(self.raw)
        self.cell = CellRegistration("eu-1", {}, (cell.rest_url,), None, 1000, api_key=KEY)
        self.identity = CellIdentity(self.fleet, "eu-1", "cluster-1")
        self.register = tokens_collection(self.fleet)
        self.path = folder / "credentials.json"

    async def hand_over(self) -> None:
        """The gateway's Secret, as its plan says."""
        settings = CredentialSettings(self.fleet, LIFETIME, revocable=True)
        state = replace(await self.cells.survey(self.cell), identity=self.identity)
        assert state.reachable
        plan = plan_credentials(
            None, {"eu-1": state}, {"eu-1": self.cell}, "cluster-1", settings, datetime.now(UTC), FLEET_KEY
        )
        cells = dict(plan.kept)
        for name, claims in plan.signed.items():
            collections, register = claimed(claims, self.fleet)
            token = CellKeySigner().sign(self.cell, claims)
            cells[name] = CellCredential(token=token, collections=collections, register_name=register)
        self.path.write_text(GatewayCredentials(keys=plan.keys, cells=cells).model_dump_json(by_alias=True))


class Merchant:
    """A tenant, as its client and the operator know it."""

    def __init__(self, operator: Operator, name: str) -> None:
        self.operator = operator
        self.owner = Owner(operator.fleet, f"uid-{name}", "merchants", "ns-uid", name)
        self.alias = self.owner.alias
        self.path = f"merchants.{name}"
        self.tier: Tier = operator.tier

    def side(self, generation: int) -> str:
        return side_of(self.alias, generation)

    async def generation(self, number: int, tier: Tier | None = None, **bindings: Binding) -> None:
        """A generation under its side's name."""
        operator, name = self.operator, f"{self.alias}@g{number}"
        a8 = ANALYSER.analyser_id
        design = CollectionDesign(
            name=name,
            dense=(("d-one", 2), ("d-two", 2)),
            sparse=(f"lex-{a8}", f"tri-{a8}"),
            indexes=(),
            shards=1,
            replicas=1,
            strict=SHARED_STRICT,
            metadata=tuple(self.owner.metadata(number).items()),
            tier=tier or self.tier,
            layout="0a1b2c3d",
        )
        await operator.cells.create_collection(operator.cell, design)
        for field in ("_deleted", "_version"):
            await operator.cells.create_index(operator.cell, name, field, "integer")
        await operator.cells.point_alias(operator.cell, self.side(number), name)
        await self.bind(number, **bindings)

    async def bind(self, number: int, **bindings: Binding | None) -> None:
        keys = {"binding": BINDING_KEY, "pending": PENDING_KEY, "previous": PREVIOUS_KEY}
        flat = {keys[name]: value.to_metadata() if value else None for name, value in bindings.items()}
        await self.operator.cells.patch_metadata(self.operator.cell, f"{self.alias}@g{number}", flat, None)

    async def switch(self, number: int) -> None:
        await self.operator.cells.point_alias(self.operator.cell, self.alias, f"{self.alias}@g{number}")

    async def drop(self, number: int) -> None:
        await self.operator.cells.drop_collection(self.operator.cell, f"{self.alias}@g{number}")

    async def grant(self) -> None:
        grants = [
            TokenGrant(
                grant_id(self.owner.uid, entry.name), self._value(entry), self.owner.uid, entry.name, entry.secret_name
            )
            for entry in ENTRIES.values()
        ]
        await self.operator.tokens.grant(self.operator.cell, self.operator.register, grants)

    async def revoke(self, right: str) -> None:
        ids = [grant_id(self.owner.uid, ENTRIES[right].name)]
        await self.operator.tokens.revoke(self.operator.cell, self.operator.register, ids)

    def _value(self, entry: AccessEntry) -> str:
        return f"{self.owner.uid}/{entry.name}/abc"

    def token(self, right: str = "prw", /, *, tier: Tier | None = None) -> str:
        entry, tier = ENTRIES[right], tier or self.tier
        claims = token_claims(
            entry,
            self.owner,
            "eu-1",
            issued=datetime.now(UTC),
            lifetime=LIFETIME,
            token_id=self._value(entry),
            tier=tier,
        )
        signing = self.operator.cell if tier == "Collection" else replace(self.operator.cell, api_key=FLEET_KEY)
        return CellKeySigner().sign(signing, claims)


@pytest.fixture(params=["Shared", "ShardKey"])
async def operator(request: pytest.FixtureRequest, cell: QdrantCell, tmp_path: Path) -> AsyncIterator[Operator]:
    made = Operator(cell, tmp_path, request.param)
    await made.tokens.prepare(made.cell, made.register, made.identity, 1)
    yield made
    await made.raw.close()


async def merchant(operator: Operator, name: str) -> Merchant:
    tenant = Merchant(operator, name)
    await tenant.generation(2, binding=dense("r1", "d-one", tenant.side(2)))
    await tenant.switch(2)
    await tenant.grant()
    return tenant


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json().get("type", "").removeprefix("urn:searchops:problem:")


async def test_two_merchants_from_the_first_slice_to_the_last_drop(cell: QdrantCell, operator: Operator) -> None:
    mine, theirs = await merchant(operator, "mine"), await merchant(operator, "theirs")
    await operator.hand_over()
    async with gateway(cell, mine, credentials=operator.path) as front:
        for tenant, secret in ((theirs, {"secret": "of theirs"}), (mine, {})):
            front.tenant = tenant
            await front.put([{**product, **secret} for product in PRODUCTS])
        assert "secret" not in str(await front.search("white shirt"))
        assert code(await front.call("POST", "/search", token=theirs.token("r"), json=SEARCH)) == (403, "other-tenant")

        first, second = dense("r1", "d-one", mine.side(2)), dense("r2", "d-two", mine.side(3))
        await mine.generation(3)
        await mine.bind(2, binding=first, pending=second)
        assert (await front.put(PRODUCTS))["sides"] == 2
        await mine.bind(3, binding=second, previous=first)
        await mine.switch(3)
        found = await front.search("white shirt")
        assert (found["revision"], found["hits"][0]["id"]) == ("r2", "shirt")
        assert (await front.put(PRODUCTS[:1]))["sides"] == 2
        await mine.switch(2)
        assert (await front.search("white shirt"))["revision"] == "r1", "taken back"
        await mine.switch(3)
        await mine.bind(3, previous=None)
        await mine.drop(2)
        assert (await front.put(PRODUCTS[:1]))["sides"] == 1
        assert (await front.search("white shirt"))["revision"] == "r2"
        assert (await front.call("GET", "")).json()["points"] == len(PRODUCTS)

        await mine.drop(3)
        assert code(await front.call("POST", "/search", json=SEARCH)) == (404, "no-collection")
        await theirs.revoke("r")
        front.tenant = theirs
        assert code(await front.call("POST", "/search", token=theirs.token("r"), json=SEARCH)) == (401, "token-revoked")
        assert (await front.call("GET", "")).json()["points"] == len(PRODUCTS)


async def test_a_merchant_moves_between_tiers_and_back(cell: QdrantCell, operator: Operator) -> None:
    await merchant(operator, "neighbour")
    tenant = Merchant(operator, "moving")
    tenant.tier = "Collection"
    await tenant.generation(2, binding=dense("r1", "d-one", tenant.side(2)))
    await tenant.switch(2)
    await tenant.grant()
    await operator.hand_over()
    first, second = dense("r1", "d-one", tenant.side(2)), dense("r2", "d-two", tenant.side(3))
    async with gateway(cell, tenant, credentials=operator.path) as front:
        await front.put(PRODUCTS)
        own = tenant.token()
        await tenant.generation(3, operator.tier)
        await tenant.bind(2, binding=first, pending=second)
        assert code(await front.call("PUT", "/products", json=PRODUCTS)) == (503, "tier-move")
        assert (await front.search("shirt"))["revision"] == "r1"

        await tenant.bind(3, binding=second, previous=first)
        await tenant.switch(3)
        tenant.tier = operator.tier
        assert (await front.search("shirt"))["revision"] == "r2"
        answer = await front.put(PRODUCTS)
        assert (answer["sides"], "another tier" in answer["missedPrevious"]) == (1, True)
        assert code(await front.call("POST", "/search", token=own, json=SEARCH)) == (404, "no-collection")
        shared = tenant.token()

        await tenant.bind(3, previous=None)
        await tenant.drop(2)
        assert "missedPrevious" not in await front.put(PRODUCTS)
        third = dense("r3", "d-one", tenant.side(4))
        await tenant.generation(4, "Collection", binding=third)
        await tenant.bind(3, binding=second, pending=third)
        assert code(await front.call("DELETE", "/products", json={"ids": ["nut"]})) == (503, "tier-move")
        await tenant.switch(4)
        tenant.tier = "Collection"
        await front.put(PRODUCTS)
        assert (await front.search("shirt"))["revision"] == "r3"
        assert code(await front.call("POST", "/search", token=shared, json=SEARCH)) == (404, "no-collection")
