"""A real browser for the tests that open what people open: found on this machine, or installed where it can be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from filelock import FileLock

from searchops_sandbox.processes import SandboxError
from searchops_sandbox.triton_environment import cache_root

VARIABLE: Final = "SEARCHOPS_CHROMIUM"
NAMES: Final = ("chromium", "google-chrome", "chrome")
FLAGS: Final = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Without them a browser asks its maker's servers at every start."""
_INSTALL_SECONDS: Final = 900.0


def ensure_chromium() -> Path:
    """Path of a Chromium or Chrome.

    ``SEARCHOPS_CHROMIUM`` wins, then ``chromium``, ``google-chrome`` and ``chrome`` on PATH. Where there is none, root
    on a Debian installs the package ``chromium``. Blocks: call it in a thread from a loop.

    Raises:
        SandboxError: where there is none to be had; it says what to install.
    """
    given = os.environ.get(VARIABLE)
    if given:
        if not os.access(given, os.X_OK) or Path(given).is_dir():
            raise SandboxError(f"{VARIABLE}: seen {given!r}, which cannot be run; wanted the path of a Chromium")
        return Path(given)
    found = _found()
    if found is not None:
        return found
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise SandboxError(f"no {', '.join(NAMES)} on PATH. {_ADVICE}")
    folder = cache_root()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "chromium.lock", timeout=_INSTALL_SECONDS):
        found = _found() or _install(apt)
    if found is None:
        raise SandboxError(f"apt-get installed the package chromium, and no chromium is on PATH. {_ADVICE}")
    return found


def launch_flags() -> list[str]:
    """Arguments for a quiet browser; root has no sandbox of the browser's own, and the pages are ours."""
    return [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]


_ADVICE: Final = (
    "Tests open the gate's report in a real browser: install Chromium or Chrome (`apt-get install chromium` as root, "
    f"`brew install --cask chromium`), or name one in {VARIABLE}."
)


def _found() -> Path | None:
    return next((Path(path) for name in NAMES if (path := shutil.which(name))), None)


def _install(apt: str) -> Path | None:
    print("sandbox: no browser on PATH: installing Debian's package chromium", file=sys.stderr, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for argv in ([apt, "update", "-q"], [apt, "install", "-q", "-y", "--no-install-recommends", "chromium"]):
        try:
            done = subprocess.run(
                argv, env=environment, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise SandboxError(f"`{' '.join(argv)}` did not end within {_INSTALL_SECONDS:g} s. {_ADVICE}") from error
        if done.returncode != 0:
            raise SandboxError(f"`{' '.join(argv)}` failed:\n{done.stderr[-2000:]}\n{_ADVICE}")
    return _found()
