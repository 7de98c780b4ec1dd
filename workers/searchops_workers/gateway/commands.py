"""`searchops-worker gateway`: the application under uvicorn."""

from __future__ import annotations

import sys

import structlog
import uvicorn
from pydantic import ValidationError
from pydantic_settings import SettingsError as SourceError

from searchops_workers.gateway.app import build_app
from searchops_workers.gateway.settings import GatewaySettings, SettingsError
from searchops_workers.retrieval import dictionaries

EXIT_SETTINGS = 2
DRAIN_SECONDS = 15


def configure_logging() -> None:
    """One JSON object a line on standard error; tracebacks without local variables, which hold merchants' tokens."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def serve(settings: GatewaySettings | None = None) -> int:
    """Serve until SIGTERM; requests under way are finished first. Returns the exit code."""
    try:
        chosen = settings if settings is not None else GatewaySettings()
        app = build_app(chosen)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        print(f"SEARCHOPS_GATEWAY_{name}: {first['msg']}; see `searchops-worker gateway --help`", file=sys.stderr)
        return EXIT_SETTINGS
    except (SettingsError, SourceError) as error:
        print(str(error), file=sys.stderr)
        return EXIT_SETTINGS
    configure_logging()
    dictionaries.load()
    uvicorn.run(
        app,
        host=chosen.host,
        port=chosen.port,
        log_level=chosen.log_level,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_keep_alive=75,
    )
    return 0
