"""Ports that are handed to programs: below the kernel's own range, and never the same to two that ask."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from searchops_sandbox import ports

if TYPE_CHECKING:
    from pathlib import Path

ASKING = "from searchops_sandbox.ports import free_port; print(*[free_port() for _ in range(40)], flush=True); input()"


def test_ports_are_below_those_that_outgoing_connections_get() -> None:
    first = int(ports.KERNELS_RANGE.read_text().split()[0])
    chosen = [ports.free_port() for _ in range(100)]
    assert all(ports.LOWEST <= port < first for port in chosen)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", chosen[-1]))


def test_processes_that_ask_at_one_time_get_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of a hundred ports two that draw 40 each without heeding each other would meet almost surely."""
    begin = ports.free_port()
    narrow = f"from searchops_sandbox import ports; ports.LOWEST = {begin}; ports._kernels_first = "
    narrow += f"lambda: {begin} + 100; {ASKING}"
    asking = [
        subprocess.Popen([sys.executable, "-c", narrow], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    chosen = []
    for process in asking:
        assert process.stdout is not None
        chosen.append({int(word) for word in process.stdout.readline().split()})
    for process in asking:
        process.communicate("\n", timeout=30)
        assert process.returncode == 0
    assert [len(group) for group in chosen] == [40, 40]
    assert not chosen[0] & chosen[1]
    monkeypatch.setattr(ports, "LOWEST", begin)
    monkeypatch.setattr(ports, "_kernels_first", lambda: begin + 100)
    assert ports.free_port() in range(begin, begin + 100), "what a dead process had chosen is free again"


def test_a_port_that_somebody_listens_at_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = ports.free_port()
    monkeypatch.setattr(ports, "LOWEST", taken)
    monkeypatch.setattr(ports, "_kernels_first", lambda: taken + 1)
    while ports._held:
        os.close(ports._held.popleft())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", taken))
        listener.listen()
        with pytest.raises(RuntimeError, match=f"none of .* from {taken} to {taken} is free"):
            ports.free_port()
    assert ports.free_port() == taken


@pytest.mark.parametrize("begins", ["1024\t65535\n", None])
def test_where_the_kernels_range_leaves_nothing_or_is_not_told_ports_are_still_chosen(
    begins: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "range"
    if begins is not None:
        told.write_text(begins)
    monkeypatch.setattr(ports, "KERNELS_RANGE", told)
    assert ports.LOWEST <= ports.free_port() < ports.USUAL_RANGE_BEGINS
