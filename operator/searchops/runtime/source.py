"""How to read one kind apart from the watch: a metadata-only LIST and a live GET, beside the kind's cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from searchops.runtime.cache import ObjectCache
    from searchops.runtime.key import Identity, Key


@dataclass(frozen=True, slots=True)
class Source:
    """One kind.

    Attributes:
        cache: what the watch has shown.
        list_metadata: every object that there is, complete, or an error: a list cut short must raise.
        read: the live object, or None where the API server answers 404; any other failure raises.
        enqueue: asks the kind's controller to look at a key.
    """

    cache: ObjectCache[Any]
    list_metadata: Callable[[], Awaitable[Sequence[Identity]]]
    read: Callable[[Key], Awaitable[Mapping[str, Any] | None]]
    enqueue: Callable[[Key], object]
