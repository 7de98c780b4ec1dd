"""What the server tells about itself: version, telemetry, metrics."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops_sandbox.qdrant.access import Access
    from searchops_sandbox.qdrant.store import Store

TITLE = "qdrant - vector search engine (searchops double over qdrant-edge, not a real server)"
PEER_ID = 3133286242819447
_DEFAULT_MAX_MAPS = 65530
_PARAMETERS = (
    ("{name}", "{collection_name}"),
    ("{vector}", "{vector_name}"),
    ("{field:path}", "{field_name}"),
    ("{snapshot}", "{snapshot_name}"),
)


def endpoint_name(route: str) -> str:
    """A route as the server's telemetry names it: ``PUT /collections/{collection_name}/index``."""
    for ours, theirs in _PARAMETERS:
        route = route.replace(ours, theirs)
    return route


def telemetry(
    store: Store,
    access: Access,
    *,
    level: int,
    cluster_mode: bool,
    answered: Mapping[str, Mapping[int, int]],
    ident: str,
    version: str,
    started: str,
) -> dict[str, Any]:
    """`GET /telemetry`: at level 2 every visible collection's configuration, the cheap bulk read of a cell.

    Args:
        store: what the cell holds.
        access: whose request it is.
        level: details wanted.
        cluster_mode: whether it is a cluster, of one node.
        answered: requests answered since the start, by endpoint and status; times are not kept, so none are told.
        ident: of the server, and of this start.
        version: what it calls itself.
        started: when it was started.
    """
    visible = [c for name, c in sorted(store.collections.items()) if access.sees(name)]
    app: dict[str, Any] = {"name": "qdrant", "version": version, "jwt_rbac": True, "startup": started}
    collections: dict[str, Any] = {"number_of_collections": len(visible)}
    result: dict[str, Any] = {"id": ident, "app": app, "collections": collections}
    if level >= 1:
        app["features"] = {"debug": False, "recovery_mode": False, "gpu": False, "double": True}
        app["system"] = {"cores": os.cpu_count()}
        result["cluster"] = {"enabled": cluster_mode}
    if level >= 2:
        collections["collections"] = [
            {"id": c.name, "init_time_ms": 0, "config": {**c.config, "uuid": None}} for c in visible
        ]
        collections["snapshots"] = [
            {
                "id": c.name,
                "running_snapshots": 0,
                "running_snapshot_recovery": 0,
                "total_snapshot_creations": c.snapshots_created,
            }
            for c in visible
        ]
        result["requests"] = {
            "rest": {
                "responses": {
                    endpoint: {str(status): {"count": count} for status, count in by_status.items()}
                    for endpoint, by_status in answered.items()
                    if endpoint and by_status
                }
            },
            "grpc": {"responses": {}},
        }
        result["memory"] = {"resident_bytes": _resident_bytes()}
    return result


def metrics(store: Store, *, version: str, cluster_mode: bool) -> str:
    """`GET /metrics`: gauges of this process; numbers that the double does not keep are left out, not invented."""
    soft_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    gauges: list[tuple[str, str, int]] = [
        ("collections_total", "number of collections", len(store.collections)),
        ("collection_dead_replicas", "total amount of shard replicas in non-active state", 0),
        ("cluster_enabled", "is cluster support enabled", int(cluster_mode)),
        ("memory_resident_bytes", "bytes in physically resident data pages", _resident_bytes()),
        ("process_threads", "count of active threads", _count(Path("/proc/self/task")) or threading.active_count()),
        ("process_open_mmaps", "count of open mmaps", _lines(Path("/proc/self/maps"))),
        ("system_max_mmaps", "system wide limit of open mmaps", _number(Path("/proc/sys/vm/max_map_count"))),
        ("process_open_fds", "count of currently open file descriptors", _count(Path("/proc/self/fd"))),
        ("process_max_fds", "limit for open file descriptors", soft_files),
    ]
    counters = [
        ("process_minor_page_faults_total", "count of minor page faults", usage.ru_minflt),
        ("process_major_page_faults_total", "count of major page faults", usage.ru_majflt),
    ]
    lines = [
        "# HELP app_info information about qdrant server",
        "# TYPE app_info gauge",
        f'app_info{{name="qdrant",version="{version}"}} 1',
    ]
    for kind, rows in (("gauge", gauges), ("counter", counters)):
        for name, text, value in rows:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {value}"]
    for name, text in (
        ("collection_running_optimizations", "number of currently running optimization tasks per collection"),
        ("collection_update_queue_length", "number of pending operations in update queues per collection"),
    ):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        lines += [f'{name}{{id="{collection}"}} 0' for collection in sorted(store.collections)]
    text = "approximate amount of points per collection"
    lines += [f"# HELP collection_points {text}", "# TYPE collection_points gauge"]
    for name, collection in sorted(store.collections.items()):
        lines.append(f'collection_points{{id="{name}"}} {collection.points_count()}')
    return "\n".join(lines) + "\n"


def _lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def _count(path: Path) -> int:
    return len(list(path.iterdir())) if path.exists() else 0


def _number(path: Path) -> int:
    return int(path.read_text()) if path.exists() else _DEFAULT_MAX_MAPS


def _resident_bytes() -> int:
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
