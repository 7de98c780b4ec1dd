"""Ends the process groups of a parent that died: ``setpriv --pdeathsig`` reaches its children, not theirs.

The parent writes ``+<group>`` and ``-<group>`` lines; the end of its pipe, however it came, is the order to kill every
group that is still listed. Only the standard library is imported here, so that it starts at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_END_SECONDS = 5.0


class GroupReaper:
    """The parent's side: a small process that outlives the parent just long enough to clear up after it."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; it ignores what is signalled to the parent's group."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "searchops_sandbox.reaper", stdin=asyncio.subprocess.PIPE, start_new_session=True
        )

    def add(self, group: int) -> None:
        """`group` dies with this process from now on."""
        self._tell(f"+{group}\n")

    def discard(self, group: int) -> None:
        """`group` has ended: its number may come round again."""
        self._tell(f"-{group}\n")

    async def close(self) -> None:
        """Ends it, and with it every group that is still listed."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), _END_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
            self._process = None

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(line.encode())


def groups_left(lines: Iterable[str]) -> set[int]:
    """The groups that were added and not taken off."""
    left: set[int] = set()
    for line in lines:
        number = int(line[1:])
        if line.startswith("+"):
            left.add(number)
        else:
            left.discard(number)
    return left


def main() -> None:
    """Reads until the parent is gone, then kills."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for group in groups_left(sys.stdin):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
