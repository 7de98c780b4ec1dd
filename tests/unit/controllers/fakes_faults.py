"""One call in a run that fails: before it takes effect, or after."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

from searchops.runtime.errors import Transient

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class ProcessKilled(BaseException):
    """The process is gone at this call: nothing that comes after it runs, no handler either."""


When = Literal["before", "after"]


@dataclass(slots=True)
class Faults:
    """Counts every call that leaves the process; number `at` raises `Transient`, its effect as `when` says.

    Attributes:
        refused: a call that fails every time, and has no effect.
        between: what happens elsewhere while a call is under way: it has taken effect, and nobody has its answer yet.
    """

    at: int | None = None
    when: When = "before"
    kills: bool = False
    calls: list[str] = field(default_factory=list)
    between: Callable[[str], None] | None = None
    refused: str = ""

    def through(self, name: str, act: Callable[[], T]) -> T:
        """Do the call, or fail it."""
        number = len(self.calls)
        self.calls.append(name)
        if name == self.refused:
            raise Transient(f"cell eu-1 answered 500 to {name}: no quorum")
        if number == self.at and self.when == "before":
            raise self._error(f"{name} (call {number}) was not sent")
        result = act()
        if self.between is not None:
            self.between(name)
        if number == self.at:
            raise self._error(f"{name} (call {number}) got no answer")
        return result

    def _error(self, said: str) -> BaseException:
        return ProcessKilled(said) if self.kills else Transient(said)
