"""A worker process out of one that has its imports behind it: starting cold costs seconds, and tests start dozens.

It is a process of its own all the same: it has its own environment, can be killed, and its exit code and output count.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from typing import TYPE_CHECKING

import searchops_workers.cli

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.context import ForkServerProcess
    from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["pytest", "searchops_workers.cli", "searchops_workers.reindex.worker"])


def start(environment: Mapping[str, str], output: Path) -> ForkServerProcess:
    """`searchops-worker run` with exactly this environment; what it prints goes to a file."""
    process = _context.Process(target=_run, args=(dict(environment), str(output)), daemon=True)
    process.start()
    return process


def _run(environment: dict[str, str], output: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    warnings.simplefilter("error")
    sys.argv = ["searchops-worker", "run"]
    searchops_workers.cli.main()
