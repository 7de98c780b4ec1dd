"""Ports for programs that are told where to listen: free, and nobody else's until the program has bound them.

Asking the kernel for any free port and letting it go again is a race: it hands out ports of that very range to outgoing
connections, of which a sandbox has hundreds. So ports are taken from below that range, where only who asks for one by
its number gets it, and a lock of a file keeps other processes of the sandbox from choosing the same one meanwhile.
"""

from __future__ import annotations

import collections
import errno
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Final

LOWEST: Final = 20_000
KERNELS_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
USUAL_RANGE_BEGINS: Final = 32_768
LEAST: Final = 1_000
"""Ports below the kernel's range that are worth choosing from."""
HELD: Final = 64
"""Locks that a process keeps; by then a program has long bound its port, and is seen there."""
TRIES: Final = 500

_held: collections.deque[int] = collections.deque()


def free_port() -> int:
    """A TCP port on the loopback interface that no program listens at and no other process of the sandbox has chosen.

    Raises:
        RuntimeError: where none of many tried is free.
    """
    end = _kernels_first()
    for _ in range(TRIES):
        port = random.SystemRandom().randrange(LOWEST, end)
        lock = _lock(port)
        if lock is None:
            continue
        if _is_free(port):
            _held.append(lock)
            if len(_held) > HELD:
                os.close(_held.popleft())
            return port
        os.close(lock)
    raise RuntimeError(f"none of {TRIES} ports from {LOWEST} to {end - 1} is free; stop sandboxes that are left over")


def _kernels_first() -> int:
    """Where the kernel's own range begins; where it begins too low to leave any, the lock alone has to do."""
    try:
        first = int(KERNELS_RANGE.read_text().split()[0])
    except OSError:
        return USUAL_RANGE_BEGINS
    return first if first - LOWEST >= LEAST else USUAL_RANGE_BEGINS


def _lock(port: int) -> int | None:
    """An open file whose lock says that the port is chosen; None where another has it. A dead process has none."""
    folder = Path(tempfile.gettempdir()) / f"searchops-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    file = os.open(folder / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return file


def _is_free(port: int) -> bool:
    """Whether it can be bound now, on every address: servers listen at 127.0.0.1, and some at all."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True
