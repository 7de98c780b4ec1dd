"""What a tenant is bound to, read through the caller's own token and kept for seconds."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import ValidationError

from searchops.api.rates import RATES_KEY, MerchantRates
from searchops.api.retrieval import BINDING_KEY, PENDING_KEY, PREVIOUS_KEY, Binding
from searchops_workers.gateway.problems import Problem
from searchops_workers.retrieval.analyser import VERSIONS, AnalyserVersionUnknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from searchops_workers.gateway.callers import Caller
    from searchops_workers.gateway.cells import Cells

CACHED = 20_000


@dataclass(frozen=True, slots=True)
class TenantBinding:
    """The three bindings in a collection's metadata, the merchant's rates, and how many points it has.

    Attributes:
        pending: the side that a rebuild fills.
        previous: the side that a rollback would need.
        points: approximately, tombstones included.
        rates: without a bound where an operator of an older version wrote none; strict mode bounds the tenant still.
    """

    binding: Binding
    pending: Binding | None = None
    previous: Binding | None = None
    points: int = 0
    rates: MerchantRates = field(default_factory=MerchantRates)


def parse_bindings(metadata: Mapping[str, object], points: int = 0) -> TenantBinding:
    """The bindings and rates that the operator wrote.

    Raises:
        Problem: 503 where there is none, or one that this version cannot read.
    """
    text = metadata.get(BINDING_KEY)
    if not isinstance(text, str):
        raise Problem(
            503,
            f"the collection carries no {BINDING_KEY}: the tenant is not provisioned yet; wait until its Ready is True",
            code="not-bound",
            retry_after=5,
        )
    try:
        binding = Binding.from_metadata(text)
        if binding.analyser.version not in VERSIONS:
            raise unknown_version(AnalyserVersionUnknown(binding.analyser))
        return TenantBinding(
            binding,
            _optional(metadata.get(PENDING_KEY)),
            _optional(metadata.get(PREVIOUS_KEY)),
            points,
            _rates(metadata.get(RATES_KEY)),
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Problem(
            503,
            f"the collection's binding or rates cannot be read ({where}: {first['msg']}); gateway and operator must "
            "be of versions that fit",
            code="binding-unreadable",
            retry_after=10,
        ) from error


def unknown_version(error: AnalyserVersionUnknown) -> Problem:
    """Tokens of one version are never written into vectors of another, nor searched for in them."""
    return Problem(503, f"the collection's binding cannot be used: {error}", code="binding-unreadable", retry_after=10)


def _optional(text: object) -> Binding | None:
    return Binding.from_metadata(text) if isinstance(text, str) else None


def _rates(text: object) -> MerchantRates:
    return MerchantRates.from_metadata(text) if isinstance(text, str) else MerchantRates()


class Bindings:
    """Bindings by cell, alias and token: what one token may read is never shown to another.

    Args:
        cells: where they are read.
        seconds: how long one may be used.
        clock: monotonic seconds.
    """

    def __init__(self, cells: Cells, *, seconds: float, clock: Callable[[], float]) -> None:
        self._cells = cells
        self._seconds = seconds
        self._clock = clock
        self._known: OrderedDict[tuple[str, str, str], tuple[float, TenantBinding]] = OrderedDict()
        self._reading: dict[tuple[str, str, str], asyncio.Task[TenantBinding]] = {}

    async def read(self, caller: Caller, *, fresh: bool = False) -> TenantBinding:
        """The caller's bindings; `fresh` passes the cache over.

        Raises:
            Problem: what the database answered, or that there is no binding.
        """
        key = (caller.cell, caller.alias, caller.fingerprint)
        found = self._known.get(key)
        if found is not None and not fresh and self._clock() - found[0] < self._seconds:
            return found[1]
        task = self._reading.get(key)
        if task is None or fresh:
            task = asyncio.create_task(self._read(caller, key))
            self._reading[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    def _forget(self, key: tuple[str, str, str], task: asyncio.Task[TenantBinding]) -> None:
        if self._reading.get(key) is task:
            del self._reading[key]
        if not task.cancelled():
            task.exception()  # a reader that has gone away leaves nobody to look at it

    async def _read(self, caller: Caller, key: tuple[str, str, str]) -> TenantBinding:
        started = self._clock()
        async with self._cells.calling(caller) as client:
            info = await client.get_collection(caller.alias)
        bindings = parse_bindings(info.config.metadata or {}, info.points_count or 0)
        self._known[key] = (started, bindings)
        self._known.move_to_end(key)
        while len(self._known) > CACHED:
            self._known.popitem(last=False)
        return bindings
