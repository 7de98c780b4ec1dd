"""Engines that outlive a sandbox: what one run has built, the next one finds under its key, as a fleet's models do."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Final

from searchops_sandbox.triton_environment import cache_root

if TYPE_CHECKING:
    from pathlib import Path

ENGINES: Final = cache_root() / "engines"
KEPT_SECONDS: Final = 14 * 24 * 3600.0
DESCRIPTION: Final = "engine.json"


def share_engines(artifacts: Path, root: Path | None = None, now: float | None = None) -> None:
    """Let ``<artifacts>/engines`` be a folder of the user's cache; what is older than two weeks is built anew.

    A key holds the checkpoint's digest and every version that the bytes follow from, so nothing stale can be found.

    Args:
        artifacts: the artifact prefix of a sandbox.
        root: the shared folder, where it is not the cache's.
        now: seconds since the epoch.
    """
    shared = root or ENGINES
    shared.mkdir(parents=True, exist_ok=True)
    oldest = (now if now is not None else time.time()) - KEPT_SECONDS
    for engine in shared.iterdir():
        if engine.stat().st_mtime < oldest:
            shutil.rmtree(engine, ignore_errors=True)
    link = artifacts / "engines"
    if not link.exists():
        link.symlink_to(shared, target_is_directory=True)


def kept_engines(root: Path | None = None) -> int:
    """How many engines the shared folder holds; the FP32 references beside them are not counted."""
    descriptions = (root or ENGINES).glob(f"*/{DESCRIPTION}")
    return sum("engine" in json.loads(path.read_text()) for path in descriptions)
