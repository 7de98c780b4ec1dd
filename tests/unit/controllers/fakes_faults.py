"""One call in a run that fails: before it takes effect, or after."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

from searchops.runtime.errors import Transient

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
When = Literal["before", "after"]


@dataclass(slots=True)
class Faults:
    """Counts every call that leaves the process; number `at` raises `Transient`, its effect as `when` says."""

    at: int | None = None
    when: When = "before"
    calls: list[str] = field(default_factory=list)

    def through(self, name: str, act: Callable[[], T]) -> T:
        """Do the call, or fail it."""
        number = len(self.calls)
        self.calls.append(name)
        if number == self.at and self.when == "before":
            raise Transient(f"{name} (call {number}) was not sent")
        result = act()
        if number == self.at:
            raise Transient(f"{name} (call {number}) got no answer")
        return result
