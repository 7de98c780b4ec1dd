"""Job manifests for worker tasks: the platform team's PodTemplate with our command, environment and safety."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from searchops.api.tasks import FINAL_EXIT_CODES, TASK_VARIABLE, TOKEN_VARIABLE
from searchops.planning.names import (
    OWNER_KIND_LABEL,
    OWNER_NAME_ANNOTATION,
    OWNER_NAMESPACE_ANNOTATION,
    OWNER_UID_LABEL,
    TASK_LABEL,
    WORKER_FOR_LABEL,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from searchops.api.meta import ApiModel, ObjectMeta

WORKER_CONTAINER = "worker"
DEFAULT_TTL_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class JobOrder:
    """A Job to be created once.

    Attributes:
        secret_claims: claims of the token that the Job's own Secret will hold, or None where it needs no cell.
        cell: the cell whose key signs that token.
    """

    name: str
    kind: str
    task: ApiModel
    owner: ObjectMeta
    owner_kind: str
    deadline: timedelta
    completions: int = 1
    retries: int = 3
    cell: str | None = None
    secret_claims: Mapping[str, Any] | None = None
    suspend: bool = False


@dataclass(frozen=True, slots=True)
class TemplateProblem:
    """Why a PodTemplate cannot be used."""

    missing: bool
    message: str


def check_template(name: str, template: Mapping[str, Any] | None, kind: str, field: str) -> TemplateProblem | None:
    """Whether a PodTemplate may run tasks of this kind; None where it may."""
    if template is None:
        return TemplateProblem(
            True, f"{field}: there is no PodTemplate {name!r} in the operator's namespace; create it or name another"
        )
    allowed = template.get("metadata", {}).get("labels", {}).get(WORKER_FOR_LABEL, "")
    if kind not in allowed.split("_"):
        return TemplateProblem(
            False,
            f"{field}: PodTemplate {name!r} carries {WORKER_FOR_LABEL}={allowed!r}, wanted {kind!r} among its "
            f"'_'-separated kinds; label it if it is meant to run {kind} Jobs",
        )
    containers = template.get("template", {}).get("spec", {}).get("containers", [])
    if not any(container.get("name") == WORKER_CONTAINER for container in containers):
        return TemplateProblem(
            False, f"{field}: PodTemplate {name!r} has no container named {WORKER_CONTAINER!r}; add one"
        )
    return None


def job_manifest(order: JobOrder, template: Mapping[str, Any]) -> dict[str, Any]:
    """The Job for an order. Only what is declared here is ours; the rest of the Pod is the platform team's."""
    labels = {
        **template.get("metadata", {}).get("labels", {}),
        TASK_LABEL: order.kind,
        OWNER_KIND_LABEL: order.owner_kind,
        OWNER_UID_LABEL: order.owner.uid,
    }
    labels.pop(WORKER_FOR_LABEL, None)
    spec: dict[str, Any] = {
        "parallelism": order.completions,
        "completions": order.completions,
        "completionMode": "Indexed",
        "backoffLimitPerIndex": order.retries,
        "podReplacementPolicy": "Failed",
        "activeDeadlineSeconds": max(1, math.ceil(order.deadline.total_seconds())),
        "ttlSecondsAfterFinished": DEFAULT_TTL_SECONDS,
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": WORKER_CONTAINER,
                        "operator": "In",
                        "values": sorted(FINAL_EXIT_CODES),
                    },
                },
            ]
        },
        "template": _pod(order, template),
    }
    if order.suspend:
        spec["suspend"] = True
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": order.name,
            "labels": labels,
            "annotations": {
                OWNER_NAMESPACE_ANNOTATION: order.owner.namespace,
                OWNER_NAME_ANNOTATION: order.owner.name,
            },
        },
        "spec": spec,
    }


def _pod(order: JobOrder, template: Mapping[str, Any]) -> dict[str, Any]:
    pod = copy.deepcopy(dict(template.get("template", {})))
    spec = pod.setdefault("spec", {})
    spec["restartPolicy"] = "Never"
    spec["automountServiceAccountToken"] = False
    environment: list[dict[str, Any]] = [{"name": TASK_VARIABLE, "value": order.task.model_dump_json(by_alias=True)}]
    if order.secret_claims is not None:
        reference = {"name": order.name, "key": "token"}
        environment.append({"name": TOKEN_VARIABLE, "valueFrom": {"secretKeyRef": reference}})
    own = {entry["name"] for entry in environment}
    for container in spec["containers"]:
        if container.get("name") == WORKER_CONTAINER:
            kept = [entry for entry in container.get("env", []) if entry.get("name") not in own]
            container["env"] = kept + environment
            container["command"] = ["searchops-worker", "run"]
            container.pop("args", None)
    metadata = pod.setdefault("metadata", {})
    metadata.setdefault("labels", {})[TASK_LABEL] = order.kind
    return pod
