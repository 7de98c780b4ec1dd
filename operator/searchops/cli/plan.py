"""What a rebuild of a tenant, or the rollout of a model, would take, from `status.plan`, for people."""

from __future__ import annotations

from typing import Any

STATES = {
    "Planned": "starts with the operator's next look at the tenant",
    "Paused": "waits: spec.paused is true; set it to false to start",
    "NoRoom": "waits: its cell has no room; raise maxCollections in the cell's Secret, or remove tenants",
    "Started": "is under way; this is what was foreseen before it started",
}

SPACES = {
    "Same": "stay: tenants switch at once",
    "Incompatible": "change: a tenant that lacks them is embedded before it switches",
}


def plan_lines(item: dict[str, Any]) -> list[str]:
    """The plan of a SearchTenant line by line; none where no rebuild is wanted."""
    plan: dict[str, Any] | None = item.get("status", {}).get("plan")
    if plan is None:
        return []
    room = plan["room"]
    rows = [
        ("rebuild", STATES.get(plan["state"], plan["state"])),
        *(("change", change) for change in plan["changes"]),
        ("strategy", f"{plan['strategy']}: {plan['why']}"),
        ("fills", " ".join([plan["collection"], *([plan["vector"]] if plan.get("vector") else [])])),
        ("revision", plan.get("revision") or "none: only the lexical vectors are made"),
        ("documents", f"{plan['documents']} (estimated)"),
        ("time", _figure(_duration(plan.get("seconds")), plan["secondsBasis"])),
        ("GPU time", _figure(_duration(plan.get("gpuSeconds")), plan["gpuSecondsBasis"])),
        ("cost", _figure(_money(plan.get("cost")), plan["costBasis"])),
        ("storage", f"{plan['extraMegabytes']} MB of dense vectors more until the rollback window ends (estimated)"),
        ("room", _room(room)),
    ]
    job = (item.get("status", {}).get("rebuild") or {}).get("reindexJob")
    if job:
        rows.append(("ReindexJob", job))
    return [f"{name:<10} {value}" for name, value in rows]


def rollout_lines(item: dict[str, Any]) -> list[str]:
    """The plan of an EmbeddingModel line by line, a wave a line; none where no candidate is built."""
    status: dict[str, Any] = item.get("status", {})
    plan: dict[str, Any] | None = status.get("plan")
    if plan is None:
        return []
    wave = status.get("wave")
    under_way = f"wave {wave['name']} is under way; this is what was foreseen before the first" if wave else ""
    rows = [
        ("candidate", plan["revision"]),
        ("rollout", under_way or f"has not started: the model is {status.get('phase', 'looked at')}"),
        ("vectors", SPACES[plan["spaceChange"]]),
        ("tenants", str(plan["tenants"])),
        ("documents", f"{plan['documents']} (estimated)"),
        *(("wave", _wave(item)) for item in plan["waves"]),
        ("time", _figure(_duration(plan.get("seconds")), plan["secondsBasis"])),
        ("GPU time", _figure(_duration(plan.get("gpuSeconds")), plan["gpuSecondsBasis"])),
        ("cost", _figure(_money(plan.get("cost")), plan["costBasis"])),
        ("storage", f"{plan['extraMegabytes']} MB of dense vectors more until the rollback window ends (estimated)"),
    ]
    return [f"{name:<10} {value}" for name, value in rows]


def _wave(wave: dict[str, Any]) -> str:
    told = f"{wave['name']}: {wave['tenants']} tenants, {wave['documents']} documents"
    took, ends = _duration(wave.get("seconds")), _duration(wave.get("finishSeconds"))
    return told if took is None or ends is None else f"{told}, at most {took}; ends {ends} after the start"


def behind(item: dict[str, Any]) -> str:
    """That the operator has not looked at this generation yet; empty where it has."""
    seen, at = item.get("status", {}).get("observedGeneration", 0), item["metadata"].get("generation")
    if seen == at:
        return ""
    return f"the operator has seen generation {seen} and the object is at {at}: this may not be of its present spec"


def _figure(value: str | None, basis: str) -> str:
    """A value with its basis; one that is not known is the basis alone, which says why."""
    return basis if value is None else f"{value} ({basis})"


def _duration(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 2 * 3600:
        return f"{seconds} s, about {seconds / 60:.0f} min"
    return f"{seconds} s, about {seconds / 3600:.1f} h"


def _money(cost: dict[str, str] | None) -> str | None:
    return None if cost is None else f"{cost['amount']} {cost['currency']}"


def _room(room: dict[str, Any]) -> str:
    held = f"the cell holds {room['collections']} of {room['maxCollections']} collections"
    for key, what in (("mapsPercent", "memory maps"), ("filesPercent", "open files")):
        if room.get(key) is not None:
            held += f", {what} at {room[key]} %"
    if not room["needed"]:
        return f"none is needed: nothing is made beside what is there ({held})"
    return f"for one more collection: {'yes' if room['fits'] else 'no'}; {held}"
