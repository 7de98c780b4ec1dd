"""A cell that is out of disk or memory: how it is told from one tenant's own quota, and what is kept of it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

MOST_SAID = 300
INSUFFICIENT_STORAGE = 507
NO_SPACE = "No space left on device"
"""What releases before 1.19, which have no quotas of their own, say with 500 where the disk has no room for a write."""


def says_full(status: int | None, body: str) -> bool:
    """Whether an answer means that the cell is out of disk or memory.

    Strict mode, which is one collection's, answers 400 and 429: those are never this, whatever their words.
    """
    return status == INSUFFICIENT_STORAGE or (status is not None and status >= 500 and NO_SPACE in body)


class CellHold(BaseModel):
    """What is known of a cell without room.

    Attributes:
        said: the answer that began it; it stays, so that no condition moves while the hold lasts.
        since: when that was.
        tenants: how many were on the cell then.
        tries: proofs that were tried in vain.
        next_try: when the next one is due.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    said: str = Field(max_length=MOST_SAID)
    since: str
    tenants: int = Field(ge=0)
    tries: int = Field(default=0, ge=0)
    next_try: str
