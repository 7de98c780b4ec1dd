"""How a tenant's points are reached: whose token a request carries, and which points each side of the tenant is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from searchops_workers.gateway.cells import Gone

if TYPE_CHECKING:
    from searchops_workers.gateway.bindings import TenantBinding
    from searchops_workers.retrieval.scope import Scope


class Door(Protocol):
    """What searches and writes of one tenant go through. A caller whom we verified is none: its token goes nowhere."""

    @property
    def alias(self) -> str:
        """The tenant's alias, which is also the name of what searches see."""
        ...

    @property
    def cell(self) -> str:
        """The cell's name."""
        ...

    @property
    def token(self) -> str:
        """What requests carry."""
        ...

    @property
    def own(self) -> bool:
        """Whether the token is the gateway's own, so that its refusal says nothing of the caller."""
        ...

    def scope(self, side: str) -> Scope:
        """The points of a side (``<alias>@a``, ``<alias>@b``), or of the alias.

        Raises:
            TierMove: it stands where this door does not lead.
        """
        ...


@dataclass(frozen=True, slots=True)
class Tenancy:
    """A tenant as one request sees it."""

    door: Door
    bindings: TenantBinding


class TierMove(Gone):
    """A side that is being filled is out of reach; searches go on."""

    def __init__(self, side: str) -> None:
        super().__init__(
            503,
            f"{side}, the side that is being filled, cannot be written from here: the tenant is moving between a "
            "collection of its own and a shared one, or that side is gone, or the gateway's credential does not name "
            "its collection yet. Searches go on; send the write again later, at the latest when the SearchTenant's "
            "status.rebuild is over",
            code="tier-move",
            retry_after=60,
        )
