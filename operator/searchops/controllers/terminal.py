"""A terminal error as a status: the old one with Ready=False, for objects that may not even parse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from searchops.api.meta import format_time

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.runtime.cache import CachedObject
    from searchops.runtime.errors import Terminal


def terminal_status(cached: CachedObject, error: Terminal, now: datetime) -> dict[str, Any]:
    """The cached status with the error as its Ready condition and this generation as observed."""
    status = dict(cached.status)
    others = [item for item in status.get("conditions", []) if item.get("type") != "Ready"]
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": error.reason,
        "message": error.message[:1024],
        "observedGeneration": cached.generation,
        "lastTransitionTime": format_time(now),
    }
    status["conditions"] = sorted([*others, ready], key=lambda item: str(item["type"]))
    status["observedGeneration"] = cached.generation
    return status
