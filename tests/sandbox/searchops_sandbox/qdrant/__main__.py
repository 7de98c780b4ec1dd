"""`python -m searchops_sandbox.qdrant --folder F --port P --grpc-port G`; keys come by the environment."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from searchops_sandbox.qdrant.server import CellSettings, run

KEY_VARIABLES = ("QDRANT__SERVICE__API_KEY", "QDRANT__SERVICE__ALT_API_KEY")
"""The server's own names, so that a real binary takes the same environment."""


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(prog="searchops_sandbox.qdrant", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the cell keeps its data")
    parser.add_argument("--port", type=int, required=True, help="REST port on 127.0.0.1")
    parser.add_argument("--grpc-port", type=int, required=True, help="gRPC port on 127.0.0.1")
    parser.add_argument("--release", default="1.18.3", help="server release whose behaviour it shows")
    parser.add_argument("--max-collections", type=int, default=None, help="the server's storage.max_collections")
    parser.add_argument("--cluster", action="store_true", help="cluster mode with this one node: shard keys")
    arguments = parser.parse_args(argv)
    keys = tuple(key for name in KEY_VARIABLES if (key := os.environ.get(name)))
    run(
        CellSettings(
            folder=arguments.folder,
            port=arguments.port,
            grpc_port=arguments.grpc_port,
            keys=keys,
            release=arguments.release,
            max_collections=arguments.max_collections,
            cluster=arguments.cluster,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
