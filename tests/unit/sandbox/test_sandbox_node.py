"""Which Pods fit the sandbox's node, in the scheduler's words."""

from __future__ import annotations

from typing import Any

import pytest

from searchops_sandbox.node import Node

NODE = Node(labels={"searchops.dev/gpu": "a10"}, resources={"nvidia.com/gpu": 1})


def pod(**spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "worker"}], **spec}}


def limits(resource: str, count: str) -> list[dict[str, Any]]:
    return [{"name": "worker", "resources": {"limits": {resource: count}}}]


@pytest.mark.parametrize(
    "fitting",
    [
        pod(),
        pod(nodeSelector={"searchops.dev/gpu": "a10", "kubernetes.io/os": "linux"}),
        pod(containers=limits("cpu", "512")),
        pod(containers=limits("memory", "4Ti")),
        pod(containers=limits("nvidia.com/gpu", "1")),
        pod(schedulingGates=[]),
    ],
)
def test_a_fitting_pod_meets_no_obstacle(fitting: dict[str, Any]) -> None:
    assert NODE.obstacle(fitting) == ""


@pytest.mark.parametrize(
    ("unfitting", "words"),
    [
        (pod(nodeSelector={"searchops.dev/gpu": "h100"}), "didn't match Pod's node selector (searchops.dev/gpu=h100)"),
        (
            pod(containers=[{"name": "w", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]),
            "Insufficient nvidia.com/gpu",
        ),
        (pod(containers=[{"name": "w", "resources": {"limits": {"amd.com/gpu": "1"}}}]), "Insufficient amd.com/gpu"),
        (pod(containers=[{"name": "w", "resources": {"limits": {"amd.com/gpu": "1k"}}}]), "Insufficient amd.com/gpu"),
        (pod(schedulingGates=[{"name": "kueue"}]), "non-empty scheduling gates: kueue"),
    ],
)
def test_an_obstacle_is_named(unfitting: dict[str, Any], words: str) -> None:
    assert words in NODE.obstacle(unfitting)
