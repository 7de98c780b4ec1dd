"""Prometheus metrics of the operator: controller-runtime's names under the prefix `searchops_`, and the domain's own.

No label ever holds a tenant. Labels that name cells, pools or dependencies are cut at a bound: what comes after it is
counted under ``other``, so that a mistake in a deployment cannot fill Prometheus.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from searchops.runtime.dependency import BreakerState
from searchops.runtime.queue import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from prometheus_client.metrics_core import Metric

    from searchops.runtime.dependency import Dependencies
    from searchops.runtime.instruments import DropCause, ReconcileOutcome
    from searchops.runtime.queue import QueueSnapshot, WorkQueue

PREFIX = "searchops"
OTHER = "other"
LABEL_BOUND = 256
WALK_SECONDS = 5.0
RECONCILE_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    *(1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0),
    *(40.0, 50.0, 60.0),
)
"""controller-runtime's buckets of reconcile times, in seconds."""
QUEUE_BUCKETS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0)
LAG_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
CallResult = Literal["ok", "transient", "terminal", "not_ready", "conflict", "error"]


class BoundedNames:
    """Lets through the first so many names of a label and calls all others ``other``."""

    def __init__(self, bound: int = LABEL_BOUND) -> None:
        self._bound = bound
        self._known: set[str] = set()

    def __call__(self, name: str) -> str:
        """The name itself, or ``other``."""
        if name in self._known:
            return name
        if len(self._known) >= self._bound:
            return OTHER
        self._known.add(name)
        return name

    def forget(self, name: str) -> None:
        """Make room: what had this name is gone."""
        self._known.discard(name)


class RuntimeMetrics:
    """What the runtime reports: fills the protocols of `searchops.runtime.instruments`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, label: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"{PREFIX}_{name}", text, [label], buckets=buckets, registry=registry)

        self._reconciles = counter("reconcile_total", "Reconciles by result.", "controller", "result")
        self._errors = counter("reconcile_errors_total", "Reconciles that raised an error.", "controller")
        self._terminal = counter("terminal_reconcile_errors_total", "Reconciles that gave up.", "controller")
        self._time = histogram("reconcile_time_seconds", "Time of a reconcile.", "controller", RECONCILE_BUCKETS)
        self._maximum = Gauge(
            f"{PREFIX}_max_concurrent_reconciles", "Workers of a controller.", ["controller"], registry=registry
        )
        self._active = Gauge(f"{PREFIX}_active_workers", "Workers that have a key.", ["controller"], registry=registry)
        self._adds = counter("workqueue_adds_total", "Keys asked for.", "name")
        self._retries = counter("workqueue_retries_total", "Keys put off by their back-off.", "name")
        self._waited = histogram("workqueue_queue_duration_seconds", "Time of a key in line.", "name", QUEUE_BUCKETS)
        self._worked = histogram(
            "workqueue_work_duration_seconds", "Time of a key with a worker.", "name", QUEUE_BUCKETS
        )
        self._events_dropped = counter("events_dropped_total", "Kubernetes events not written.", "cause")

    def added(self, queue: str) -> None:
        """A key was asked for."""
        self._adds.labels(queue).inc()

    def started(self, queue: str, waited: float) -> None:
        """A key was handed to a worker."""
        self._waited.labels(queue).observe(waited)

    def finished(self, queue: str, worked: float) -> None:
        """A worker gave a key back."""
        self._worked.labels(queue).observe(worked)

    def retried(self, queue: str) -> None:
        """A key was put off."""
        self._retries.labels(queue).inc()

    def workers(self, controller: str, maximum: int) -> None:
        """Workers were started; every series of the controller exists from now on, at zero."""
        self._maximum.labels(controller).set(maximum)
        self._active.labels(controller)
        self._errors.labels(controller)
        self._terminal.labels(controller)
        for result in ("success", "error", "requeue", "requeue_after"):
            self._reconciles.labels(controller, result)

    def busy(self, controller: str, change: int) -> None:
        """A worker took up or laid down a key."""
        self._active.labels(controller).inc(change)

    def reconciled(self, controller: str, outcome: ReconcileOutcome, seconds: float) -> None:
        """A reconcile ended."""
        self._reconciles.labels(controller, outcome).inc()
        self._time.labels(controller).observe(seconds)

    def failed(self, controller: str, *, terminal: bool) -> None:
        """A reconcile raised an error."""
        self._errors.labels(controller).inc()
        if terminal:
            self._terminal.labels(controller).inc()

    def dropped(self, cause: DropCause) -> None:
        """A Kubernetes event was not written."""
        self._events_dropped.labels(cause).inc()


class RuntimeCollector(Collector):
    """Reads queues, dependencies and the lease when Prometheus asks, so that idling costs nothing.

    Args:
        now: monotonic seconds. What walks every key of a queue is walked once in `WALK_SECONDS` at most, however many
            scrape and however often.
    """

    def __init__(
        self,
        queues: Iterable[WorkQueue[Any]],
        dependencies: Dependencies | None = None,
        lease_remaining: Callable[[], float] | None = None,
        caches: Mapping[str, Callable[[], int]] | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._walked: tuple[float, dict[str, QueueSnapshot]] | None = None
        self._queues = tuple(queues)
        self._dependencies = dependencies
        self._lease_remaining = lease_remaining
        self._caches = dict(caches or {})
        self._names = BoundedNames()

    def collect(self) -> Iterator[Metric]:
        """Every family, read now."""
        yield from self._collect_queues()
        if self._dependencies is not None:
            yield from self._collect_dependencies(self._dependencies)
        if self._lease_remaining is not None:
            left = self._lease_remaining()
            yield _gauge("leader", "1 where this process holds the lease.", [], {(): float(left > 0)})
            yield _gauge("lease_remaining_seconds", "Time left on the lease.", [], {(): left})
        sizes: dict[tuple[str, ...], float] = {(kind,): float(size()) for kind, size in self._caches.items()}
        if sizes:
            yield _gauge("cached_objects", "Objects in the cache.", ["kind"], sizes)

    def _collect_queues(self) -> Iterator[Metric]:
        seen = self._snapshots()
        depth: dict[tuple[str, ...], float] = {
            (name, Priority.CHANGE.name.lower()): float(at.changes) for name, at in seen.items()
        }
        depth.update({(name, Priority.RESYNC.name.lower()): float(at.resyncs) for name, at in seen.items()})
        yield _gauge("workqueue_depth", "Keys that wait for a worker.", ["name", "priority"], depth)
        for name, text, values in (
            ("delayed", "Keys put off to a later time.", {n: float(at.delayed) for n, at in seen.items()}),
            ("parked", "Keys that wait for a dependency.", {n: float(at.parked) for n, at in seen.items()}),
            ("refused", "Keys refused at capacity.", {n: float(at.refused) for n, at in seen.items()}),
            (
                "unfinished_work_seconds",
                "Time spent so far on keys that run.",
                {n: at.unfinished_seconds for n, at in seen.items()},
            ),
            (
                "longest_running_processor_seconds",
                "Time spent so far on the key that runs longest.",
                {n: at.longest_running_seconds for n, at in seen.items()},
            ),
        ):
            yield _gauge(f"workqueue_{name}", text, ["name"], {(n,): value for n, value in values.items()})

    def _snapshots(self) -> dict[str, QueueSnapshot]:
        now = self._now()
        if self._walked is None or now - self._walked[0] >= WALK_SECONDS:
            self._walked = now, {queue.name: queue.snapshot() for queue in self._queues}
        return self._walked[1]

    def _collect_dependencies(self, dependencies: Dependencies) -> Iterator[Metric]:
        in_use: dict[tuple[str, ...], float] = {}
        waiting: dict[tuple[str, ...], float] = {}
        opened: dict[tuple[str, ...], float] = {}
        for at in dependencies.snapshots():
            label = (self._names(at.name),)
            in_use[label] = in_use.get(label, 0.0) + at.in_use
            waiting[label] = waiting.get(label, 0.0) + at.waiting
            opened[label] = max(opened.get(label, 0.0), float(at.state is not BreakerState.CLOSED))
        yield _gauge("dependency_in_use", "Calls under way.", ["dependency"], in_use)
        yield _gauge("dependency_waiting", "Keys parked on the dependency.", ["dependency"], waiting)
        yield _gauge("dependency_breaker_open", "1 where the breaker is not closed.", ["dependency"], opened)


def _gauge(name: str, text: str, labels: list[str], values: Mapping[tuple[str, ...], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    for label, value in values.items():
        family.add_metric(list(label), value)
    return family


class DomainMetrics:
    """What the controllers report of the fleet; states and outcomes come from closed lists, names are bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"{PREFIX}_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", text, labels, registry=registry)

        self._names = BoundedNames()
        self._phases: dict[str, set[str]] = {}
        self._objects = gauge("objects", "Objects by kind and phase.", "kind", "phase")
        self._cell_up = gauge("cell_up", "1 where the cell answers and is the one we know.", "cell")
        self._cell_collections = gauge("cell_collections", "Collections in the cell.", "cell")
        self._cell_capacity = gauge("cell_collections_capacity", "Collections that the cell may hold.", "cell")
        self._servers = gauge("pool_servers", "Model servers of the pool by state.", "pool", "state")
        self._orphans = gauge("orphaned_collections", "Collections of ours without an owner.", "cell")
        self._drifted = counter("drifted_tenants_total", "Tenants that a bulk read found to differ.", "cell")
        self._overdue = gauge(
            "tombstones_overdue", "Deleted tenants' collections that are past their time and still there.", "cell"
        )
        self._verdicts = counter("gate_verdicts_total", "Verdicts of the gate.", "outcome")
        self._switches = counter("tenant_switches_total", "Tenants switched to another binding.", "direction")
        self._rollbacks = counter("rollbacks_total", "Rollouts taken back.", "cause")
        self._isolation = counter("isolation_broken_total", "Isolation canaries that got through.")
        self._backups = counter("backup_jobs_total", "Ended Jobs of backups and restore proofs.", "kind", "outcome")
        self._backup_tenants = gauge(
            "backup_tenants", "Tenants that ask for backups, by whether they have one.", "cell", "has"
        )
        self._backup_oldest = gauge("backup_oldest_seconds", "Age of the newest backup of whose is oldest.", "cell")
        self._visits = counter(
            "isolation_canary_total", "Visits of the isolation canary by what they proved.", "outcome"
        )
        self._rotation = gauge(
            "cell_key_rotation", "1 for the phase that the cell's key rotation is in.", "cell", "phase"
        )
        self._tokens = gauge("cell_tokens", "Tenants' tokens of the cell by the key that signed them.", "cell", "key")
        self._register_lost = gauge(
            "cell_token_register_lost", "1 where the register of tokens is gone: the cell refuses every token.", "cell"
        )
        self._cell_full = gauge("cell_full", "1 where the cell is held: it is out of disk or memory.", "cell")
        self._phases_of: dict[str, str] = {}
        self._missed = counter("watch_missed_total", "What a sweep found that the watch had missed.", "kind", "what")
        self._calls = counter("client_requests_total", "Calls to things outside.", "client", "operation", "result")
        self._call_time = Histogram(
            f"{PREFIX}_client_request_duration_seconds",
            "Time of a call to something outside.",
            ["client", "operation"],
            registry=registry,
        )
        self._lag = Histogram(
            f"{PREFIX}_observed_generation_lag_seconds",
            "Time from a change of the spec as the watch showed it to the status that has seen it.",
            ["kind"],
            buckets=LAG_BUCKETS,
            registry=registry,
        )

    def objects(self, kind: str, phases: Mapping[str, int]) -> None:
        """Objects of a kind by phase; phases that are not named any more are taken out."""
        known = self._phases.setdefault(kind, set())
        for phase in known - phases.keys():
            self._objects.remove(kind, phase)
        self._phases[kind] = set(phases)
        for phase, count in phases.items():
            self._objects.labels(kind, phase).set(count)

    def cell(self, name: str, *, up: bool, collections: int, capacity: int, orphans: int = 0) -> None:
        """One cell as it was seen last."""
        cell = self._names(name)
        self._cell_up.labels(cell).set(up)
        self._cell_collections.labels(cell).set(collections)
        self._cell_capacity.labels(cell).set(capacity)
        self._orphans.labels(cell).set(orphans)

    def drifted(self, cell: str, tenants: int) -> None:
        """A bulk read found tenants that differ from what they declare."""
        self._drifted.labels(self._names(cell)).inc(tenants)

    def overdue(self, cell: str, count: int) -> None:
        """A sweep of a cell has ended."""
        self._overdue.labels(self._names(cell)).set(count)

    def pool(self, name: str, states: Mapping[str, int]) -> None:
        """Servers of one pool by state."""
        pool = self._names(name)
        for state, count in states.items():
            self._servers.labels(pool, state).set(count)

    def verdict(self, outcome: str) -> None:
        """The gate has spoken."""
        self._verdicts.labels(outcome).inc()

    def switched(self, direction: Literal["forward", "back"]) -> None:
        """A tenant was bound anew."""
        self._switches.labels(direction).inc()

    def rolled_back(self, cause: Literal["regressed", "breaker", "request"]) -> None:
        """A rollout was taken back."""
        self._rollbacks.labels(cause).inc()

    def isolation_broken(self) -> None:
        """A token opened what it must not open."""
        self._isolation.inc()

    def backup(self, kind: str, outcome: str) -> None:
        """A backup's or a proof's Job has ended; both labels come from closed lists."""
        self._backups.labels(kind, outcome).inc()

    def backups(self, cell: str, *, asking: int, without: int, oldest: float) -> None:
        """A cell's tenants that ask for backups, those that have none, and the age of the oldest newest one."""
        name = self._names(cell)
        self._backup_tenants.labels(name, "true").set(asking - without)
        self._backup_tenants.labels(name, "false").set(without)
        self._backup_oldest.labels(name).set(oldest)

    def visited(self, outcome: Literal["held", "broken", "unknown"]) -> None:
        """A visit of the isolation canary has ended."""
        self._visits.labels(outcome).inc()

    def rotation(self, cell: str, phase: str, resigned: int, total: int) -> None:
        """A cell's keys were looked at; the series of the phase before is taken out."""
        label = self._names(cell)
        before = self._phases_of.get(label)
        if before is not None and before != phase:
            self._rotation.remove(label, before)
        self._phases_of[label] = phase
        self._rotation.labels(label, phase).set(1)
        self._tokens.labels(label, "signing").set(resigned)
        self._tokens.labels(label, "other").set(total - resigned)

    def register_lost(self, cell: str, *, lost: bool) -> None:
        """A cell was looked at for its register of tokens."""
        self._register_lost.labels(self._names(cell)).set(lost)

    def cell_full(self, cell: str, *, full: bool) -> None:
        """A cell's room was looked at."""
        self._cell_full.labels(self._names(cell)).set(full)

    def missed(self, kind: str, *, ghosts: int, refreshed: int) -> None:
        """A sweep has ended."""
        self._missed.labels(kind, "ghost").inc(ghosts)
        self._missed.labels(kind, "refreshed").inc(refreshed)

    def call(self, client: str, operation: str, result: CallResult, seconds: float) -> None:
        """A call to something outside has ended."""
        self._calls.labels(client, operation, result).inc()
        self._call_time.labels(client, operation).observe(seconds)

    def observed(self, kind: str, lag: float) -> None:
        """A status has caught up with a change of the spec."""
        self._lag.labels(kind).observe(lag)


class Telemetry:
    """One registry with everything; the process has one, a test makes its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.runtime = RuntimeMetrics(self.registry)
        self.domain = DomainMetrics(self.registry)

    def watch(
        self,
        queues: Iterable[WorkQueue[Any]],
        *,
        dependencies: Dependencies | None = None,
        lease_remaining: Callable[[], float] | None = None,
        caches: Mapping[str, Callable[[], int]] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read these at every scrape."""
        self.registry.register(RuntimeCollector(queues, dependencies, lease_remaining, caches, now=now))

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
