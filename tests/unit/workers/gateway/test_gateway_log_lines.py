"""What the gateway logs of a failure: the cause, and never the caller's token."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import structlog

from searchops_workers.gateway.commands import configure_logging

if TYPE_CHECKING:
    import pytest

TOKEN = "a-merchants-token-0123456789"


def _fail(authorization: str) -> None:
    token = authorization.removeprefix("Bearer ")
    raise RuntimeError(f"{len(token)} characters were no use")


def test_a_traceback_shows_its_cause_and_no_local_variable(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    try:
        _fail(f"Bearer {TOKEN}")
    except RuntimeError:
        structlog.get_logger("searchops.gateway").exception("request failed", route="search")
    finally:
        structlog.reset_defaults()
    said = capsys.readouterr()
    line = json.loads(said.err)
    assert line["event"] == "request failed"
    assert f"RuntimeError: {len(TOKEN)} characters were no use" in line["exception"]
    assert TOKEN not in said.err + said.out
