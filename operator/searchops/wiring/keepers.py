"""What looks after cells and credentials beside the controllers: keys, the gateway's Secret, the canary, room."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchops.adapters.cell_room import QdrantRoom
from searchops.adapters.kube import KubeStateMaps
from searchops.adapters.kube_gateway_secret import KubeGatewaySecret
from searchops.adapters.kube_secrets import KubeAccessSecrets
from searchops.adapters.tokens import CellKeySigner
from searchops.controllers.cell_access import CellAccess
from searchops.controllers.cell_room import CellRooms
from searchops.controllers.gateway_credentials import GatewayCredentialKeeper
from searchops.controllers.isolation_canary import IsolationCanary
from searchops.planning.gateway_credentials import CredentialSettings
from searchops.runtime.queue import Priority
from searchops.wiring.controllers import tenant_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from searchops.adapters.access_probes import AccessProbes
    from searchops.adapters.directory import RegisteredDirectory
    from searchops.adapters.kube import KubeObjects
    from searchops.adapters.kube_api import KubeApi
    from searchops.adapters.qdrant import QdrantCells
    from searchops.adapters.shared_cells import SharedCells
    from searchops.runtime.recorder import EventRecorder
    from searchops.settings import OperatorSettings
    from searchops.telemetry.metrics import Telemetry
    from searchops.wiring.controllers import Kind

GATEWAY_KEY_BYTES = 48


@dataclass(frozen=True, slots=True)
class Ways:
    """The ways out that keepers share.

    Attributes:
        protect: told of values that must never be let out in a message.
    """

    settings: OperatorSettings
    api: KubeApi
    directory: RegisteredDirectory
    raw_cells: QdrantCells
    cells: SharedCells
    objects: KubeObjects
    probes: AccessProbes
    tenants: Kind
    events: EventRecorder
    telemetry: Telemetry
    clock: Callable[[], datetime]
    protect: Callable[..., None]


def make_cell_access(ways: Ways) -> CellAccess:
    """Keys in rotation, and each cell's register of tokens."""
    return CellAccess(
        settings=tenant_settings(ways.settings),
        directory=ways.directory,
        cells=ways.cells,
        probe=ways.probes,
        state=KubeStateMaps(ways.api, ways.settings.namespace),
        tenants=ways.tenants.cache,
        wake=ways.tenants.queue.add,
        metrics=ways.telemetry.domain,
        clock=ways.clock,
    )


def make_gateway_credentials(ways: Ways, access: CellAccess) -> GatewayCredentialKeeper:
    """What the gateway needs for tenants that share collections."""
    settings = ways.settings
    return GatewayCredentialKeeper(
        CredentialSettings(settings.fleet, settings.token_lifetime, settings.revocable_tokens),
        secret=KubeGatewaySecret(ways.api, settings.namespace, settings.gateway_secret),
        directory=ways.directory,
        cells=ways.cells,
        objects=ways.objects,
        keys=access,
        signer=CellKeySigner(),
        tenants=ways.tenants.cache,
        wake=ways.tenants.queue.add,
        clock=ways.clock,
        new_key=lambda: secrets.token_urlsafe(GATEWAY_KEY_BYTES),
        protect=ways.protect,
    )


def make_isolation_canary(ways: Ways) -> IsolationCanary:
    """Tries each tenant's token on another."""
    return IsolationCanary(
        period=ways.settings.isolation_canary_minutes * 60,
        gateway_url=ways.settings.gateway_url,
        directory=ways.directory,
        cells=ways.cells,
        secrets=KubeAccessSecrets(ways.api),
        trials=ways.probes,
        tenants=ways.tenants.cache,
        wake=ways.tenants.queue.add,
        events=ways.events,
        metrics=ways.telemetry.domain,
    )


def make_cell_rooms(ways: Ways) -> CellRooms:
    """Holds on cells that are out of disk or memory."""
    return CellRooms(
        fleet=ways.settings.fleet,
        namespace=ways.settings.namespace,
        directory=ways.directory,
        probe=QdrantRoom(ways.raw_cells),
        objects=ways.objects,
        state=KubeStateMaps(ways.api, ways.settings.namespace),
        tenants=ways.tenants.cache,
        wake=lambda key: ways.tenants.queue.add(key, Priority.RESYNC),
        events=ways.events,
        metrics=ways.telemetry.domain,
        clock=ways.clock,
    )
