"""What a tenant is bound to, read through the caller's own token and kept for seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from searchops.api.rates import RATES_KEY, MerchantRates
from searchops.api.retrieval import BINDING_KEY, PENDING_KEY, PREVIOUS_KEY, Binding
from searchops.api.shared import KEY_SHARED, RECORD_PREFIX
from searchops_workers.gateway.problems import Problem
from searchops_workers.gateway.readings import Readings
from searchops_workers.retrieval.analyser import VERSIONS, AnalyserVersionUnknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from searchops_workers.gateway.callers import Caller
    from searchops_workers.gateway.cells import Cells

CACHED = 20_000
log = structlog.get_logger("searchops.gateway")


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
        self._known: Readings[tuple[str, str, str], TenantBinding] = Readings(seconds=seconds, clock=clock, kept=CACHED)

    async def read(self, caller: Caller, *, fresh: bool = False) -> TenantBinding:
        """The caller's bindings; `fresh` passes the cache over.

        Raises:
            Problem: what the database answered, or that there is no binding.
        """
        key = (caller.cell, caller.alias, caller.fingerprint)
        return await self._known.read(key, lambda: self._read(caller), fresh=fresh)

    async def _read(self, caller: Caller) -> TenantBinding:
        async with self._cells.calling(caller) as client:
            info = await client.get_collection(caller.alias)
        metadata = info.config.metadata or {}
        if KEY_SHARED in metadata or any(key.startswith(RECORD_PREFIX) for key in metadata):
            log.error("an alias points to a shared collection", cell=caller.cell, alias=caller.alias)
            raise Problem(
                403,
                f"{caller.alias} points to a collection that tenants share, and this token would open all of it; "
                "nothing is read or written; use the token of the tenant's own Secret, and have the alias removed",
                code="shared-collection",
            )
        return parse_bindings(metadata, info.points_count or 0)
