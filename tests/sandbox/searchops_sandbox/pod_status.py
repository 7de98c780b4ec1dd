"""What the process runner writes into a Pod's status, as strategic merge patches (conditions merge by type)."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]
HOST: Final = "127.0.0.1"
TERMINAL: Final = frozenset({"Succeeded", "Failed"})
MESSAGE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Ending:
    """How a container ended.

    Attributes:
        exit_code: the exit status; 128 + n for signal n.
        message: the termination message, cut to 4,096 bytes.
        started: when it started.
        finished: when it ended.
        reason: a machine-readable reason, where it is not the usual ``Completed`` or ``Error``.
    """

    exit_code: int
    message: str
    started: datetime.datetime
    finished: datetime.datetime
    reason: str | None = None


def stamp(moment: datetime.datetime) -> str:
    """A time as the API server wants it: UTC, whole seconds."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, status: bool, reason: str, message: str, now: datetime.datetime) -> Json:
    """One Pod condition."""
    return {
        "type": kind,
        "status": "True" if status else "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": stamp(now),
    }


def unschedulable(message: str, now: datetime.datetime) -> Json:
    """Pending, not bound: nothing has room for it."""
    return {"phase": "Pending", "conditions": [condition("PodScheduled", False, "Unschedulable", message, now)]}


def waiting(container: Json, reason: str, message: str, now: datetime.datetime) -> Json:
    """Pending, bound, not started."""
    return {
        "phase": "Pending",
        "hostIP": HOST,
        "hostIPs": [{"ip": HOST}],
        "conditions": [
            condition("Initialized", True, "PodInitialized", "", now),
            condition("Ready", False, "ContainersNotReady", message, now),
            condition("ContainersReady", False, "ContainersNotReady", message, now),
        ],
        "containerStatuses": [_container(container, {"waiting": {"reason": reason, "message": message}})],
    }


def running(container: Json, started: datetime.datetime) -> Json:
    """Running and ready."""
    return {
        "phase": "Running",
        "startTime": stamp(started),
        "hostIP": HOST,
        "hostIPs": [{"ip": HOST}],
        "podIP": HOST,
        "podIPs": [{"ip": HOST}],
        "conditions": [
            condition("Initialized", True, "PodInitialized", "", started),
            condition("Ready", True, "WorkerStarted", "", started),
            condition("ContainersReady", True, "WorkerStarted", "", started),
        ],
        "containerStatuses": [_container(container, {"running": {"startedAt": stamp(started)}}, ready=True)],
    }


def ended(container: Json, ending: Ending, *, deadline: bool = False) -> Json:
    """The terminal phase that follows from an exit status."""
    succeeded = ending.exit_code == 0 and not deadline
    reason = ending.reason or ("Completed" if ending.exit_code == 0 else "Error")
    state = {
        "terminated": {
            "exitCode": ending.exit_code,
            "reason": reason,
            "message": ending.message,
            "startedAt": stamp(ending.started),
            "finishedAt": stamp(ending.finished),
        }
    }
    patch: Json = {
        "phase": "Succeeded" if succeeded else "Failed",
        "conditions": [
            condition("Ready", False, "PodCompleted" if succeeded else "PodFailed", "", ending.finished),
            condition("ContainersReady", False, "PodCompleted" if succeeded else "PodFailed", "", ending.finished),
        ],
        "containerStatuses": [_container(container, state)],
    }
    if deadline:
        patch["reason"] = "DeadlineExceeded"
        patch["message"] = "the Pod was active longer than its activeDeadlineSeconds"
    return patch


def failed(reason: str, message: str, now: datetime.datetime) -> Json:
    """Failed without ever having run."""
    return {
        "phase": "Failed",
        "reason": reason,
        "message": message,
        "conditions": [condition("Ready", False, "PodFailed", message, now)],
    }


def disrupted(container: Json | None, now: datetime.datetime) -> Json:
    """Failed because its node lost it: a Pod that runs in the books and has no process."""
    message = "the process runner was restarted and the worker process is gone"
    patch = failed("NodeRestart", message, now)
    patch["conditions"].append(condition("DisruptionTarget", True, "TerminationByKubelet", message, now))
    if container is not None:
        lost = Ending(137, "", now, now)
        patch["containerStatuses"] = ended(container, lost)["containerStatuses"]
    return patch


def _container(container: Json, state: Json, *, ready: bool = False) -> Json:
    return {
        "name": container["name"],
        "image": container.get("image", ""),
        "imageID": "",
        "ready": ready,
        "started": ready,
        "restartCount": 0,
        "state": state,
    }
