"""What this version needs of a cell's server, by the release that brought it."""

from __future__ import annotations

import re

NEEDED = (
    ((1, 16), "collection metadata (who owns a collection, and what it is bound to)"),
    ((1, 17), "update_mode and update_filter (older writes never overwrite newer ones)"),
    ((1, 18), "PUT and DELETE /collections/{collection}/vectors/{vector} (a model's new vector space beside the old)"),
)
"""Capabilities that provisioning and rebuilding rest on; a cell without one of them holds no tenant."""
_RELEASE = re.compile(r"^v?(\d+)\.(\d+)(?:[.+-]|$)")


def release_of(version: str) -> tuple[int, int] | None:
    """Major and minor number, or None where the text tells none."""
    match = _RELEASE.match(version)
    return None if match is None else (int(match[1]), int(match[2]))


def lacking(version: str) -> str:
    """The first needed capability that a server of this version has not got; empty where it has all.

    A server that does not tell its version (a proxy may hide it) is not judged by it.
    """
    release = release_of(version)
    if release is None:
        return ""
    for since, what in NEEDED:
        if release < since:
            return f"version {version} has no {what}, which came with {since[0]}.{since[1]}"
    return ""


def oldest() -> str:
    """The oldest release that has everything."""
    major, minor = max(since for since, _ in NEEDED)
    return f"{major}.{minor}"
