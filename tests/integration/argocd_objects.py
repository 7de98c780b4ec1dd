"""Argo CD's own judgement of our Lua, and the objects that it is asked about."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import yaml

from searchops_sandbox.binaries import ensure_binaries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Helm = Callable[..., str]

Json = dict[str, Any]
REVISION = "shop-encoder-r2-782efd74"
ACTIVE = "shop-encoder-r1-d3836a1d"


class ArgoCd:
    """Argo CD's command line over our entries of its ConfigMap, as the chart renders them."""

    def __init__(self, helm: Helm, folder: Path) -> None:
        self._program = ensure_binaries(["argocd"])["argocd"]
        self._folder = folder
        rendered = helm(
            "template",
            "searchops",
            "charts/searchops",
            "--set",
            "settings.artifacts=s3://a/b",
            "--set",
            "argocd.enabled=true",
            "--show-only",
            "templates/argocd.yaml",
        )
        self.config: Json = yaml.safe_load(rendered)
        (folder / "cm.yaml").write_text(rendered)

    def health(self, objects: list[Json]) -> list[tuple[str, str]]:
        """Status and message of each; they are judged side by side."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(self._health, range(len(objects)), objects))

    def _health(self, number: int, document: Json) -> tuple[str, str]:
        said = self._run("health", document, number=number)
        match = re.fullmatch(r"STATUS: (\w+)\nMESSAGE: (.*)\n", said, re.DOTALL)
        assert match is not None, said
        return match[1], match[2].strip()

    def actions(self, document: Json) -> set[str]:
        """The actions that may be taken."""
        rows = [line.split() for line in self._run("list-actions", document).splitlines()]
        assert rows[0] == ["NAME", "DISABLED"], rows
        return {name for name, disabled in rows[1:] if disabled == "false"}

    def changes(self, document: Json, action: str) -> list[str]:
        """Lines of the document that the action adds or takes away, as diff marks them."""
        said = self._run("run-action", document, action)
        assert said.startswith("Following fields have been changed:"), said
        return [" ".join(line.split()) for line in said.splitlines() if line[:1] in ("<", ">")]

    def _run(self, verb: str, document: Json, *arguments: str, number: int = 0) -> str:
        path = self._folder / f"object-{verb}-{number}.yaml"
        path.write_text(yaml.safe_dump(document))
        done = subprocess.run(
            [
                str(self._program),
                "admin",
                "settings",
                "resource-overrides",
                verb,
                str(path),
                *arguments,
                "--argocd-cm-path",
                str(self._folder / "cm.yaml"),
            ],
            env={"ARGOCD_BINARY_NAME": "argocd", "HOME": str(self._folder), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


def condition(kind: str, status: str, reason: str, message: str = "said so") -> Json:
    return {"type": kind, "status": status, "reason": str(reason), "message": message}


def model(
    *conditions: Json, phase: str = "Rolling", candidate: str | None = REVISION, seen: int = 3, **status: Any
) -> Json:
    named: Json = {"candidate": {"revision": candidate, "number": 2}} if candidate is not None else {}
    return {
        "apiVersion": "searchops.dev/v1alpha1",
        "kind": "EmbeddingModel",
        "metadata": {"name": "shop-encoder", "generation": 3, "annotations": {"team": "search"}},
        "spec": {"rollout": {"waves": [{"name": "canary"}, {"name": "half"}, {"name": "all"}]}},
        "status": {
            "observedGeneration": seen,
            "phase": phase,
            "conditions": list(conditions),
            "active": {"revision": ACTIVE, "number": 1},
            **named,
            **status,
        },
    }


def tenant(*conditions: Json, phase: str = "Progressing", paused: bool = False, seen: int = 3) -> Json:
    return {
        "apiVersion": "searchops.dev/v1alpha1",
        "kind": "SearchTenant",
        "metadata": {"name": "acme", "namespace": "shop", "generation": 3},
        "spec": {"paused": paused},
        "status": {"observedGeneration": seen, "phase": phase, "conditions": list(conditions)},
    }


def job(phase: str | None, *conditions: Json, seen: int = 3, spec: Json | None = None) -> Json:
    return {
        "apiVersion": "searchops.dev/v1alpha1",
        "kind": "ReindexJob",
        "metadata": {"name": "acme-move", "namespace": "shop", "generation": 3},
        "spec": {"tenant": "acme", "worker": {"podTemplate": "cpu"}, **(spec or {})},
        "status": {"observedGeneration": seen, "conditions": list(conditions), **({"phase": phase} if phase else {})},
    }


def stage(progressing: Json, phase: str, **status: Any) -> Json:
    """A rollout under way: Ready says that it is on its way, Progressing how far."""
    return model(condition("Ready", "False", "Progressing", "on its way"), progressing, phase=phase, **status)


SETTLED = condition("Ready", "True", "Promoted", f"{ACTIVE} is active")
PHASES: dict[str, tuple[Json, str]] = {
    "Pending": (model(condition("Ready", "False", "Waiting"), phase="Pending", candidate=None), "Progressing"),
    "Building": (stage(condition("Progressing", "True", "Building"), "Building"), "Progressing"),
    "Loading": (stage(condition("Progressing", "True", "Loading"), "Loading"), "Progressing"),
    "Verifying": (stage(condition("Progressing", "Unknown", "ArtifactsUnreadable"), "Verifying"), "Progressing"),
    "Gating": (stage(condition("Progressing", "True", "Gating"), "Gating"), "Progressing"),
    "AwaitingApproval": (
        stage(condition("Progressing", "False", "AwaitingApproval"), "AwaitingApproval"),
        "Suspended",
    ),
    "Rolling": (stage(condition("Progressing", "True", "Rolling"), "Rolling"), "Progressing"),
    "Soaking": (stage(condition("Progressing", "True", "Soaking"), "Soaking"), "Progressing"),
    "Promoted": (
        model(SETTLED, phase="Promoted", candidate=None, tenants={"total": 6, "bound": 4, "held": 2}),
        "Healthy",
    ),
    "RolledBack": (
        model(condition("Ready", "False", "Rejected"), phase="RolledBack", candidate=None),
        "Degraded",
    ),
    "Paused": (
        stage(condition("Progressing", "False", "Paused"), "Paused"),
        "Suspended",
    ),
}
