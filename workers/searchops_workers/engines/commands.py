"""The build Job's entry: task JSON in, answer written, exit code out."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pydantic import ValidationError

from searchops.api.tasks import EXIT_BAD_TASK, TERMINATION_LIMIT, TERMINATION_VARIABLE, BuildTask
from searchops_workers.engines.stages import BuildError, BuildStage, Disrupted
from searchops_workers.engines.storage import write_bytes
from searchops_workers.engines.task import failure, run_task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


def run_build(task_json: str) -> int:
    """Run a build task.

    The answer goes to the task's result URI first and to the termination message after that. A stage that a second try
    can mend (a store or volume that fails) leaves only the termination message, and a disruption leaves nothing.

    Returns:
        The exit code: 0, a stage of `BuildStage`, or 64 where the task itself is wrong.
    """
    try:
        task = BuildTask.model_validate_json(task_json)
    except ValidationError as error:
        _say(f"the task is no build task: {error}")
        return EXIT_BAD_TASK
    try:
        with _disruptable(), tempfile.TemporaryDirectory(prefix="searchops-build-") as work:
            result = run_task(task, Path(work), _say)
            content = result.model_dump_json(by_alias=True).encode()
            write_bytes(task.result_uri, content)
    except Disrupted as error:
        _say(f"DISRUPTED: {error}")
        return int(BuildStage.DISRUPTED)
    except BuildError as error:
        _say(f"{error.stage.name}: {error}")
        _terminate_with(failure(task, error).model_dump_json(by_alias=True).encode())
        return int(error.stage)
    except OSError as error:
        _say(f"RETRY: {error}")
        return int(BuildStage.RETRY)
    _terminate_with(content)
    _say(f"{BuildStage(result.exit_code).name}: {result.message}")
    return result.exit_code


@contextlib.contextmanager
def _disruptable() -> Iterator[None]:
    """SIGTERM stops the build between two bytecodes, so that scratch folders are removed on the way out."""

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise Disrupted("the build was told to stop; nothing half-made is visible to any server")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate_with(content: bytes) -> None:
    path = os.environ.get(TERMINATION_VARIABLE)
    if path and len(content) <= TERMINATION_LIMIT:
        with contextlib.suppress(OSError):
            Path(path).write_bytes(content)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
