"""One cell as a running process: REST and gRPC on one event loop over one store."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from searchops_sandbox.qdrant import grpc_api
from searchops_sandbox.qdrant.access import Authenticator
from searchops_sandbox.qdrant.faults import FaultTable
from searchops_sandbox.qdrant.requests_seen import RequestsSeen
from searchops_sandbox.qdrant.rest import Application
from searchops_sandbox.qdrant.service import Service
from searchops_sandbox.qdrant.store import Store

if TYPE_CHECKING:
    from pathlib import Path

HOST = "127.0.0.1"


@dataclass(frozen=True, repr=False)
class CellSettings:
    """How one cell runs.

    Attributes:
        folder: where it keeps its data.
        port: REST port on the loopback interface.
        grpc_port: gRPC port on the loopback interface.
        keys: accepted API keys; none means no authentication.
        release: the server release whose behaviour it shows, `1.18.3` or a later one.
        max_collections: the server's `storage.max_collections`.
        cluster: cluster mode, with this one node.
    """

    folder: Path
    port: int
    grpc_port: int
    keys: tuple[str, ...]
    release: str
    max_collections: int | None = None
    cluster: bool = False

    @property
    def version(self) -> str:
        """What it calls itself, so that nobody takes it for a real server."""
        return f"{self.release}-double"

    @property
    def minor(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor, *_ = self.release.split(".")
        return int(major), int(minor)


async def serve(settings: CellSettings) -> None:
    """Serve until SIGTERM, then close the shards."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    store = Store(settings.folder, settings.minor, time.monotonic, settings.max_collections)
    service = Service(store, cluster_mode=settings.cluster)
    authenticator = Authenticator(settings.keys, service.value_exists)
    faults = FaultTable()
    app = Application(service, authenticator, faults, settings.version).build()
    grpc_server = grpc_api.build(service, authenticator, faults, settings.version, f"{HOST}:{settings.grpc_port}")
    await grpc_server.start()
    config = uvicorn.Config(
        RequestsSeen(app),
        host=HOST,
        port=settings.port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )
    try:
        await uvicorn.Server(config).serve()
    finally:
        await grpc_server.stop(grace=0.5)
        store.close()


def run(settings: CellSettings) -> None:
    """Serve in an event loop of its own."""
    asyncio.run(serve(settings))
