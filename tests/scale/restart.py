"""A replica that starts over a provisioned fleet, in a process of its own, so that its memory is its own.

``python -m scale.restart FLEET OUT``: reads the pickled `Provisioned`, writes what it took as JSON.
"""

from __future__ import annotations

import time

_STARTED = time.perf_counter()
_CPU_STARTED = time.process_time()

import asyncio  # noqa: E402 - the clock starts before the imports that a restart pays for
import json  # noqa: E402
import pickle  # noqa: E402 - a file that this benchmark has made
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

import searchops.wiring  # noqa: E402, F401 - everything that the operator loads, clients included
from scale.fleet import ApiServer  # noqa: E402
from scale.provisioned import running  # noqa: E402
from scale.replica import MODELS, TENANTS, Replica, World  # noqa: E402

if TYPE_CHECKING:
    from searchops.runtime.key import Identity

_IMPORTED = time.perf_counter()
_CPU_IMPORTED = time.process_time()
TIMEOUT = 200.0


async def restart(world: World, listed: list[Identity], model: dict[str, Any], pages: Path) -> dict[str, Any]:
    """From the first page of the initial list to the last tenant's first pass."""
    start, cpu = time.perf_counter(), time.process_time()
    replica = Replica(world, listed)
    api = ApiServer(replica.deliver)
    async with running(replica, api):
        replica.deliver(None, MODELS, model)
        with pages.open(encoding="utf-8") as file:
            for page in file:
                for raw in json.loads(page):
                    replica.deliver(None, TENANTS, raw)
                await asyncio.sleep(0)
        filled = time.perf_counter()
        await replica.settled(len(listed), timeout=TIMEOUT)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return {
        "import_seconds": _IMPORTED - _STARTED,
        "fill_seconds": filled - start,
        "seconds": _IMPORTED - _STARTED + seconds,
        "cpu_seconds": _CPU_IMPORTED - _CPU_STARTED + cpu_seconds,
        "reconciled": len(replica.passes),
        "passes": sum(replica.passes.values()),
        "failures": replica.failures[:5],
        "unready": replica.unready()[:5],
        "api_writes": sum(api.writes.values()),
        "cell_writes": sum(world.cells.writes.values()),
        "secret_writes": world.secrets.writes,
        "reindex_job_writes": world.reindex_jobs.writes,
        "events": sum(world.events.reasons.values()),
        "cell_requests": {**world.cells.reads},
        "secret_reads": world.secrets.reads,
    }


def main() -> None:
    """Load the fleet, restart over it, say what it took."""
    fleet, out = Path(sys.argv[1]), Path(sys.argv[2])
    imported = _megabytes("VmRSS")
    with fleet.open("rb") as file:
        world, listed, model = pickle.load(file)  # noqa: S301 - see above
    loaded = _megabytes("VmRSS")
    world.cells.reads.clear()
    world.cells.writes.clear()
    world.events.reasons.clear()
    world.secrets.reads = world.secrets.writes = world.reindex_jobs.writes = 0
    answer = asyncio.run(restart(world, listed, model, fleet.with_suffix(".pages")))
    answer |= {"rss_imports_mb": imported, "rss_world_mb": loaded - imported, "rss_mb": _megabytes("VmHWM")}
    out.write_text(json.dumps(answer), encoding="utf-8")


def _megabytes(field: str) -> float:
    """Resident size of this program: now, or (``VmHWM``) at most; ``ru_maxrss`` would show its parent's if greater."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(one for one in status.splitlines() if one.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
