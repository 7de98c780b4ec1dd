"""`searchops-worker gateway`: one gateway process under uvicorn."""

from __future__ import annotations

import sys

import uvicorn
from pydantic import ValidationError

from searchops_workers.gateway.app import build_app
from searchops_workers.gateway.settings import GatewaySettings


def serve() -> int:
    """Serve until a signal; returns the exit status."""
    try:
        settings = GatewaySettings()
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(str(part) for part in problem["loc"]).upper()
            sys.stderr.write(f"SEARCHOPS_GATEWAY_{name}: {problem['msg']}\n")
        return 2
    uvicorn.run(build_app(settings), host=settings.host, port=settings.port, log_level="warning", access_log=False)
    return 0
