"""Injected faults: honoured only by the double, set over `/__sandbox/faults` with the cell's own key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

if TYPE_CHECKING:
    from collections.abc import Iterable


class Fault(BaseModel):
    """What happens to the next requests of a route.

    Attributes:
        method: HTTP method, `GRPC`, or `*`.
        path: regular expression that the whole path must match (`/qdrant.Points/Upsert` for gRPC).
        latency: seconds to wait before anything else.
        status: answer with this status instead of doing anything (with `retry_after`, if given).
        drop: cut the connection, `before-effect` or `after-effect`; over gRPC the call ends as UNAVAILABLE.
        opened: let the request in with full rights whoever asks, as a server does whose keys were taken away (REST).
        count: how many requests it hits; None for all until it is removed.
    """

    model_config = ConfigDict(extra="forbid")

    method: str = "*"
    path: str
    latency: float = Field(default=0.0, ge=0, le=600)
    status: int | None = Field(default=None, ge=400, le=599)
    message: str = "injected fault"
    retry_after: int | None = Field(default=None, ge=0)
    drop: Literal["before-effect", "after-effect"] | None = None
    opened: bool = False
    count: int | None = Field(default=1, ge=1)

    @field_validator("path")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value

    def matches(self, method: str, path: str) -> bool:
        """Whether a request is hit."""
        return self.method in {"*", method} and re.fullmatch(self.path, path) is not None


ROOM_WANTED = (
    ("PUT", "/collections/[^/]+"),
    ("PUT", "/collections/[^/]+/(points|index|points/vectors|vectors/[^/]+)"),
    ("POST", "/collections/[^/]+/points/batch"),
    ("GRPC", "/qdrant.Points/(Upsert|UpdateVectors|UpdateBatch)"),
)


def without_room() -> list[Fault]:
    """The faults of a cell whose quota of disk or memory is used up, until they are removed."""
    message = "Quota exceeded: disk usage is above the limit of this server"
    return [Fault(method=method, path=path, status=507, message=message, count=None) for method, path in ROOM_WANTED]


class FaultTable:
    """The faults in force; the first that matches a request is used up by it."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, faults: Iterable[Fault]) -> None:
        """Put faults in force."""
        self._faults.extend(faults)

    def clear(self) -> None:
        """Remove all."""
        self._faults.clear()

    def listed(self) -> list[Fault]:
        """What is in force."""
        return list(self._faults)

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that hits this request, if any."""
        for index, fault in enumerate(self._faults):
            if fault.matches(method, path):
                if fault.count is not None:
                    left = fault.count - 1
                    self._faults[index : index + 1] = [fault.model_copy(update={"count": left})] if left else []
                return fault
        return None
