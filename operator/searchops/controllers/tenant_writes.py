"""What one pass writes for a tenant: on its cell, one call each, and its Secrets."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from searchops.api.meta import format_time
from searchops.controllers.irreversible import irreversible
from searchops.planning import tenant_facts as act
from searchops.planning.names import tokens_collection
from searchops.planning.tenant_access import key_id, renew_at, token_claims
from searchops.runtime.errors import Transient

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from searchops.api.observed import AccessSecretState, CellRegistration
    from searchops.controllers.tenant_gather import TenantPorts
    from searchops.planning.schema import Owner
    from searchops.planning.tenant_facts import TenantAction, TenantFacts, TenantSettings


class TenantWrites:
    """Writes of a tenant's pass.

    Args:
        ports: where they go.
        settings: the operator's.
        clock: when tokens are issued.
        lease_left: seconds for which this process is certainly the only one that acts.
    """

    def __init__(
        self,
        ports: TenantPorts,
        settings: TenantSettings,
        *,
        clock: Callable[[], datetime],
        lease_left: Callable[[], float],
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._clock = clock
        self._lease_left = lease_left

    async def on_cell(self, facts: TenantFacts, action: TenantAction) -> None:
        """One call; a cell that stopped answering opens its breaker and holds back nobody else.

        A write of a slice puts a whole record in the place of the former: it is begun only within the lease, as what
        cannot be taken back is.
        """
        cell = facts.cell.registration if facts.cell is not None else None
        if cell is None:
            raise Transient("the tenant's cell is not registered any more; it is read again")
        ddl = self._ports.ddl
        match action:
            case act.PrepareRegister() | act.GrantTokens() | act.RevokeTokens():
                await self._register(cell, action)
            case act.ClaimCell(identity=identity):
                await ddl.claim(cell, identity)
            case act.CreateCollection(design=design):
                async with self._within_lease(f"create {design.name}", only=design.tier != "Collection"):
                    await ddl.create_collection(cell, design)
            case act.CreateIndex(collection=collection, field=field, kind=kind):
                await ddl.create_index(cell, collection, field, kind)
            case act.PointAlias(alias=alias, collection=collection):
                async with self._within_lease(f"point alias {alias} to {collection}"):
                    await ddl.point_alias(cell, alias, collection)
            case act.RemoveAlias(alias=alias):
                async with self._within_lease(f"remove alias {alias}"):
                    await ddl.remove_alias(cell, alias)
            case act.PatchCollection(collection=collection, metadata=metadata, strict=strict):
                async with self._within_lease(f"patch {collection}"):
                    await ddl.patch_metadata(cell, collection, dict(metadata), strict)
            case act.AddVector(collection=collection, vector=vector, dimension=dimension):
                sliced = any(item.name == collection and item.slice is not None for item in facts.collections)
                async with self._within_lease(f"add vector {vector} to {collection}", only=sliced):
                    await ddl.add_vector(cell, collection, vector, dimension)
            case act.RemoveVector(collection=collection, vector=vector):
                async with self._within_lease(f"remove vector {vector} of {collection}"):
                    await ddl.remove_vector(cell, collection, vector)
            case act.DropCollection(collection=collection):
                async with self._within_lease(f"drop {collection}"):
                    await ddl.drop_collection(cell, collection)

    def _within_lease(self, what: str, *, only: bool = True) -> AbstractAsyncContextManager[None]:
        return irreversible(what, self._lease_left) if only else nullcontext()

    async def _register(
        self, cell: CellRegistration, action: act.PrepareRegister | act.GrantTokens | act.RevokeTokens
    ) -> None:
        register, name = self._ports.register, tokens_collection(self._settings.fleet)
        match action:
            case act.PrepareRegister(identity=identity, replicas=replicas):
                await register.prepare(cell, name, identity, replicas)
            case act.GrantTokens(grants=grants):
                await register.grant(cell, name, grants)
            case act.RevokeTokens(ids=ids):
                await register.revoke(cell, name, ids)

    async def secret(self, facts: TenantFacts, owner: Owner, action: act.WriteAccessSecret) -> AccessSecretState:
        """Sign a token and write its Secret; as the API server then has it."""
        assert facts.cell is not None  # noqa: S101 - access is planned on a cell that answered
        cell, entry, now = facts.cell.registration, action.entry, self._clock()
        signing, lifetime = facts.signing or cell, self._settings.token_lifetime
        if action.tier != "Collection":
            assert facts.gateway_key is not None  # noqa: S101 - no such token is planned without
            signing = replace(cell, api_key=facts.gateway_key)
        claims = token_claims(
            entry, owner, cell.name, issued=now, lifetime=lifetime, token_id=action.token_id, tier=action.tier
        )
        data = {
            "gateway": self._settings.gateway_url,
            "alias": owner.alias,
            "token": self._ports.signer.sign(signing, claims),
            "expiresAt": format_time(now + lifetime),
        }
        if action.tier == "Collection" and (entry.role == "Search" or entry.direct):
            data["url"] = cell.urls[0]
            if cell.grpc_port is not None:
                data["grpcUrl"] = f"{urlsplit(cell.urls[0]).hostname}:{cell.grpc_port}"
            if cell.ca_cert:
                data["caCert"] = cell.ca_cert
        annotations = {
            "searchops.dev/inputs-digest": action.inputs_digest,
            "searchops.dev/renew-at": format_time(renew_at(owner, entry, now, lifetime)),
            "searchops.dev/token-id": action.token_id,
            "searchops.dev/key-id": key_id(signing.api_key, action.tier),
            "searchops.dev/tenant": owner.name,
        }
        return await self._ports.secrets.write(
            owner.namespace, entry.secret_name, owner={"uid": owner.uid}, data=data, annotations=annotations
        )
