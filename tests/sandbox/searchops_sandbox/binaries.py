"""The programs of the control plane, built once from Go modules and kept per version under the user's cache folder."""

from __future__ import annotations

import collections
import hashlib
import os
import platform
import re
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from searchops_sandbox.go_toolchain import ensure_go
from searchops_sandbox.processes import SandboxError
from searchops_sandbox.triton_environment import cache_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.progress import TaskID

MODULES: Final = Path(__file__).with_name("gomod")
BUILD_SECONDS: Final = 2400.0
_LOCK_SECONDS: Final = 3600.0
_FLAGS: Final = ("-mod=readonly", "-trimpath", "-buildvcs=false")
_GO: Final = (1, 26)


@dataclass(frozen=True, slots=True)
class Program:
    """One program and where it comes from.

    Attributes:
        name: the file name it gets.
        package: the Go package of its `main`.
        module: the folder under ``gomod/`` whose go.mod pins it.
        versioned_by: the module whose pinned version is the program's.
        stamps: link-time variables, with ``{version}``, ``{major}`` and ``{minor}`` (of Kubernetes) filled in.
        envtest: whether ``KUBEBUILDER_ASSETS`` may provide it.
    """

    name: str
    package: str
    module: str
    versioned_by: str
    stamps: tuple[str, ...] = ()
    envtest: bool = True


_KUBERNETES_STAMPS = tuple(
    f"{package}.{assignment}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    for assignment in ("gitVersion={version}", "gitMajor={major}", "gitMinor={minor}", "gitTreeState=clean")
)
_HELM_STAMPS = (
    "helm.sh/helm/v3/internal/version.version={version}",
    "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1",
    "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={kubernetes_minor}",
    "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1",
    "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor={kubernetes_minor}",
)
_KUBERNETES = "k8s.io/kubernetes"
_ARGOCD = "github.com/argoproj/argo-cd/v3"
_ARGOCD_STAMPS = (f"{_ARGOCD}/common.version={{version}}",)
PROGRAMS: Final = {
    program.name: program
    for program in (
        Program("etcd", "go.etcd.io/etcd/server/v3", "cluster", "go.etcd.io/etcd/server/v3"),
        Program("kube-apiserver", f"{_KUBERNETES}/cmd/kube-apiserver", "cluster", _KUBERNETES, _KUBERNETES_STAMPS),
        Program(
            "kube-controller-manager",
            f"{_KUBERNETES}/cmd/kube-controller-manager",
            "cluster",
            _KUBERNETES,
            _KUBERNETES_STAMPS,
        ),
        Program("kubectl", f"{_KUBERNETES}/cmd/kubectl", "cluster", _KUBERNETES, _KUBERNETES_STAMPS),
        Program("helm", "helm.sh/helm/v3/cmd/helm", "helm", "helm.sh/helm/v3", _HELM_STAMPS, envtest=False),
        # Acts as what its file's name, or ARGOCD_BINARY_NAME, says.
        Program("argocd", f"{_ARGOCD}/cmd", "argocd", _ARGOCD, _ARGOCD_STAMPS, envtest=False),
    )
}
CONTROL_PLANE: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
DEMO: Final = (*CONTROL_PLANE, "helm")


def ensure_binaries(names: Iterable[str] = tuple(PROGRAMS)) -> dict[str, Path]:
    """Paths of the programs, built first where they are not there yet (about five minutes on two cores, once).

    ``KUBEBUILDER_ASSETS`` wins for the programs that its folder has. Safe to call from several processes at once: one
    builds under a file lock, and a finished program appears by one rename. Blocks: call it in a thread from a loop.

    Raises:
        SandboxError: where Go is missing or a build fails; with the end of its output.
    """
    found: dict[str, Path] = {}
    missing: list[tuple[Program, Path]] = []
    for name in names:
        program = PROGRAMS[name]
        path = _provided(program) or cached_path(program)
        found[name] = path
        if not path.exists():
            missing.append((program, path))
    if missing:
        folder = cache_root() / "binaries"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "build.lock", timeout=_LOCK_SECONDS):
            _build_all([(program, path) for program, path in missing if not path.exists()])
    return found


def version_of(program: Program) -> str:
    """The version that the committed go.mod pins, for instance ``v1.36.3``.

    Raises:
        SandboxError: where go.mod does not name the module.
    """
    text = (MODULES / program.module / "go.mod").read_text()
    match = re.search(rf"^(?:require)?\s*{re.escape(program.versioned_by)} (v\S+)", text, re.MULTILINE)
    if match is None:
        raise SandboxError(f"gomod/{program.module}/go.mod pins no version of {program.versioned_by}")
    return match[1]


def cached_path(program: Program) -> Path:
    """Where the built program is kept: the version and a digest of everything that shapes it are in the path."""
    shape = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        shape.update((MODULES / program.module / name).read_bytes())
    shape.update("\0".join((program.package, *link_flags(program), *_FLAGS, platform.machine())).encode())
    return cache_root() / "binaries" / f"{program.name}-{version_of(program)}-{shape.hexdigest()[:10]}" / program.name


def link_flags(program: Program) -> list[str]:
    """``-X`` assignments: without a version, clients cannot parse what the server says it is."""
    version = version_of(program)
    major, minor = version.removeprefix("v").split(".")[:2]
    kubernetes_minor = version_of(PROGRAMS["kube-apiserver"]).split(".")[1]
    filled = [
        stamp.format(version=version, major=major, minor=minor, kubernetes_minor=kubernetes_minor)
        for stamp in program.stamps
    ]
    return [part for stamp in filled for part in ("-X", stamp)]


def _provided(program: Program) -> Path | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets or not program.envtest:
        return None
    path = Path(assets) / program.name
    return path if os.access(path, os.X_OK) else None


def _build_all(wanted: list[tuple[Program, Path]]) -> None:
    if not wanted:
        return
    go = ensure_go(_GO, cache_root())
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"sandbox: building {', '.join(program.name for program, _ in wanted)} (once, a few minutes)")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for program, path in wanted:
            task = progress.add_task(f"{program.name} {version_of(program)}", total=None)

            def show(line: str, task: TaskID = task, program: Program = program) -> None:
                progress.update(task, description=f"{program.name} {version_of(program)}: {line[:70]}")

            _build(go, program, path, show)
            progress.remove_task(task)
            console.print(f"sandbox: {program.name} {version_of(program)} is built")


def _build(go: str, program: Program, path: Path, show: Callable[[str], None]) -> None:
    staging = path.parent.parent / f".building-{uuid.uuid4().hex[:8]}"
    argv = [go, "build", "-v", *_FLAGS, "-ldflags", " ".join(("-s", "-w", *link_flags(program)))]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""}
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        process = subprocess.Popen(
            [*argv, "-o", str(staging), program.package],
            cwd=MODULES / program.module,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        last = _follow(process, program, show)
        if process.returncode != 0:
            raise SandboxError(
                f"building {program.name} {version_of(program)} ended with status {process.returncode}; "
                f"the Go module proxy must be reachable (GOPROXY). Its last lines:\n{last}"
            )
        staging.rename(path)
    finally:
        staging.unlink(missing_ok=True)


def _follow(process: subprocess.Popen[str], program: Program, show: Callable[[str], None]) -> str:
    """Shows each line and returns the last ones; a build that takes longer than `BUILD_SECONDS` is killed."""
    last: collections.deque[str] = collections.deque(maxlen=30)
    clock = threading.Timer(BUILD_SECONDS, process.kill)
    clock.daemon = True
    clock.start()
    try:
        for line in process.stderr or ():
            last.append(line.rstrip())
            show(last[-1])
        process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        clock.cancel()
        if process.stderr is not None:
            process.stderr.close()
    return "\n".join(last)


def main() -> None:
    """Builds everything: ``python -m searchops_sandbox.binaries``."""
    for name, path in ensure_binaries().items():
        print(f"{name} {path}", file=sys.stdout)


if __name__ == "__main__":
    main()
