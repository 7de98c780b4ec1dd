"""Runs the peer as it was installed, in its own environment; names of Services resolve to a server of this machine.

It derives each database's address from the name of a Kubernetes Service, which no name server here knows. Only where a
connection goes is changed: what is sent, and how often, is the peer's own.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

SERVICES = ".svc.cluster.local"


def main() -> None:
    """``PEER_CELL_PORT`` names the port on the loopback interface; the arguments are the peer's."""
    anyio: Any = importlib.import_module("anyio")
    connect_tcp = anyio.connect_tcp

    async def connect(remote_host: str, remote_port: int, **options: Any) -> Any:
        if str(remote_host).endswith(SERVICES):
            remote_host, remote_port = "127.0.0.1", int(os.environ["PEER_CELL_PORT"])
        return await connect_tcp(remote_host, remote_port, **options)

    anyio.connect_tcp = connect
    importlib.import_module("qdrant_operator.main").run(sys.argv[1:])


if __name__ == "__main__":
    main()
