"""Process groups die with their parent, and those that ended before are left alone."""

from __future__ import annotations

import asyncio
import signal

from hypothesis import given
from hypothesis import strategies as st

from searchops_sandbox.reaper import GroupReaper, groups_left


@given(st.lists(st.tuples(st.booleans(), st.integers(2, 9))))
def test_what_is_left_is_what_was_added_last(orders: list[tuple[bool, int]]) -> None:
    left = groups_left(f"{'+' if added else '-'}{group}\n" for added, group in orders)
    assert left == {group for group in range(2, 10) if ([a for a, g in orders if g == group] or [False])[-1]}


async def test_closing_kills_the_groups_that_are_listed_and_no_others() -> None:
    listed, ended = [await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True) for _ in range(2)]
    reaper = GroupReaper()
    await reaper.start()
    reaper.add(listed.pid)
    reaper.add(ended.pid)
    reaper.discard(ended.pid)
    await reaper.close()
    assert await asyncio.wait_for(listed.wait(), 10) == -signal.SIGKILL
    assert ended.returncode is None
    ended.kill()
    await ended.wait()
