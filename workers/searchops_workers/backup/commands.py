"""The backup Job's and the proof Job's entry."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from searchops.api.tasks import EXIT_OK, TOKEN_VARIABLE, BackupResult, BackupTask
from searchops_workers.answers import answer, terminate_with
from searchops_workers.backup.errors import BackupError
from searchops_workers.backup.node import open_nodes
from searchops_workers.backup.prove import prove
from searchops_workers.backup.store import TenantBackups
from searchops_workers.backup.take import take
from searchops_workers.engines.stages import BuildError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.tasks import ProveTask

MOST = 1024


def run_backup(task: BackupTask | ProveTask, environment: Mapping[str, str] = os.environ) -> int:
    """Do the task and answer; returns the exit code."""
    backups = TenantBackups(task.prefix, task.fleet, task.namespace, task.name)
    token = environment.get(TOKEN_VARIABLE, "")
    try:
        with ExitStack() as stack:
            nodes = open_nodes(task.nodes.url, task.nodes.others, token, task.nodes.ca_cert)
            for node in nodes:
                stack.callback(node.close)
            result = take(task, nodes, backups) if isinstance(task, BackupTask) else prove(task, nodes, backups)
        answer(result, task.result_uri)
    except BackupError as error:
        return _failed(task, str(error), error.code)
    except BuildError as error:
        return _failed(task, str(error), int(error.stage))
    said = f"{result.points} points, {result.size} bytes; removed: {', '.join(result.removed) or 'none'}"
    return _say(task, f"{said} {result.message}".rstrip(), EXIT_OK)


def _failed(task: BackupTask | ProveTask, why: str, code: int) -> int:
    """No answer that counts, only why there is none: the Job's termination message."""
    failure = BackupResult(kind=task.kind, id=task.id, ok=False, exit_code=code, message=why[:MOST])
    terminate_with(failure.model_dump_json(by_alias=True, exclude_none=True).encode())
    return _say(task, why, code)


def _say(task: BackupTask | ProveTask, text: str, code: int) -> int:
    print(f"{task.kind} {task.id} of {task.namespace}/{task.name}: {text}", flush=True)
    return code
