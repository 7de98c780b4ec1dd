"""What is alive once the caches are full is looked at no more, and young garbage more rarely."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from searchops.wiring.garbage_collection import YOUNG, keep_what_is_there, relax

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def collector() -> Iterator[None]:
    """Everybody else's settings are put back."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Linked:
    """Something that may be part of a cycle."""

    def __init__(self) -> None:
        self.other: Linked | None = None


@pytest.mark.usefixtures("collector")
def test_young_objects_are_looked_at_more_rarely_and_older_ones_as_before() -> None:
    before = gc.get_threshold()
    relax()
    assert gc.get_threshold() == (YOUNG, *before[1:])
    assert before[0] < YOUNG


@pytest.mark.usefixtures("collector")
def test_what_is_kept_is_freed_by_its_count_and_later_cycles_are_found() -> None:
    kept = Linked()
    keep_what_is_there()
    assert gc.get_freeze_count() > 0
    gone = weakref.ref(kept)
    del kept
    assert gone() is None, "a replaced object goes at once"
    first, second = Linked(), Linked()
    first.other, second.other = second, first
    cycle = weakref.ref(first)
    del first, second
    gc.collect()
    assert cycle() is None, "a cycle made afterwards is found"
