"""How Python looks for cycles in a process whose memory is mostly a cache that stays.

Every object of a fleet is dozens of containers, none of them in a cycle. By default the collector looks at the young
ones after every 700 allocations, and again at everything whenever a quarter has been added: while the watches fill the
cache that is work for nothing. It is asked more rarely, and what the cache holds once it is full is not looked at
again; a replaced object is still freed at once, by its reference count.
"""

from __future__ import annotations

import gc

YOUNG = 20_000
"""Allocations, less deallocations, until the young generation is looked at; some megabytes of garbage at most."""


def relax() -> None:
    """Look for cycles more rarely; before anything is read."""
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])


def keep_what_is_there() -> None:
    """Leave what is alive now out of every later look, once the caches are full."""
    gc.collect()
    gc.freeze()
