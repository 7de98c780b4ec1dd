"""The environment a real Triton server runs in, built once from PyPI and kept under the user's cache folder.

The wheel ``nvidia-pytriton`` carries tritonserver 2.51 with its python backend. Its stub ignores ``PYTHONPATH``: the
python models see the packages of whichever ``python`` comes first on the server's ``PATH``, so the server gets a
virtual environment of its own (Python 3.11 or 3.12 with a shared libpython, numpy below 2).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock

from searchops_sandbox.processes import SandboxError

REQUIREMENTS = Path(__file__).with_name("triton_requirements.txt")
SUPPORTED = ("3.11", "3.12")
_LAYOUT = "1"
_LOCK_SECONDS = 900.0
_STEP_SECONDS = 600.0
_DESCRIBE = (
    "import json,os,sys,sysconfig;"
    "d=sysconfig.get_config_var('LIBDIR') or '';n=sysconfig.get_config_var('LDLIBRARY') or '';"
    "print(json.dumps({'version':'%d.%d'%sys.version_info[:2],'executable':getattr(sys,'_base_executable',sys.executable),"
    "'libdir':d,'shared':n.endswith('.so') or '.so.' in n,'present':os.path.exists(os.path.join(d,n))}))"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that the server's stub can link against."""

    executable: Path
    version: str
    library_folder: Path


@dataclass(frozen=True, slots=True)
class TritonEnvironment:
    """A finished environment on disk."""

    root: Path
    interpreter: Interpreter

    @property
    def packages(self) -> Path:
        """``site-packages`` of the server's virtual environment."""
        return self.root / "venv" / "lib" / f"python{self.interpreter.version}" / "site-packages"

    @property
    def server(self) -> Path:
        """The server program."""
        return self.packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        """The folder that ``--backend-directory`` names."""
        return self.packages / "pytriton" / "tritonserver" / "backends"

    @property
    def caches(self) -> Path:
        """The folder that ``--cache-directory`` names."""
        return self.packages / "pytriton" / "tritonserver" / "caches"

    def variables(self) -> dict[str, str]:
        """The whole environment of the server process: one thread per model, no user packages, its own libraries."""
        libraries = (self.packages / "nvidia_pytriton.libs", self.interpreter.library_folder)
        return {
            "PATH": os.pathsep.join((str(self.root / "venv" / "bin"), "/usr/local/bin", "/usr/bin", "/bin")),
            "LD_LIBRARY_PATH": os.pathsep.join(str(folder) for folder in libraries),
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            "PYTHONNOUSERSITE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "VIRTUAL_ENV": str(self.root / "venv"),
        }


def cache_root() -> Path:
    """Where built parts are kept: ``SEARCHOPS_CACHE``, else the user's cache folder."""
    override = os.environ.get("SEARCHOPS_CACHE")
    return Path(override) if override else platformdirs.user_cache_path("searchops")


def ensure_environment() -> TritonEnvironment:
    """The server's environment, built first where it is not there yet (about a minute, 300 MB).

    Safe to call from several processes at once: one builds under a file lock, and the finished folder appears by one
    rename.

    Raises:
        SandboxError: where no fitting Python is found or an installation step fails.
    """
    interpreter = find_interpreter()
    key = hashlib.sha256(
        b"\0".join((_LAYOUT.encode(), REQUIREMENTS.read_bytes(), str(interpreter.executable).encode()))
    ).hexdigest()[:16]
    folder = cache_root() / "triton"
    environment = TritonEnvironment(folder / key, interpreter)
    if environment.server.exists():
        return environment
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{key}.lock", timeout=_LOCK_SECONDS):
        if not environment.server.exists():
            _build(environment)
    return environment


def find_interpreter() -> Interpreter:
    """A Python 3.11 or 3.12 with a shared libpython.

    Raises:
        SandboxError: naming what was looked at, where none fits.
    """
    seen: list[str] = []
    for candidate in _candidates():
        try:
            answer = subprocess.run(
                [candidate, "-I", "-c", _DESCRIBE], capture_output=True, text=True, timeout=30, check=True
            ).stdout
            facts = json.loads(answer)
        except (OSError, subprocess.SubprocessError, ValueError):
            continue
        if facts["version"] in SUPPORTED and facts["shared"] and facts["present"]:
            return Interpreter(Path(facts["executable"]), facts["version"], Path(facts["libdir"]))
        seen.append(
            f"{candidate} (Python {facts['version']}, shared libpython: {facts['shared'] and facts['present']})"
        )
    raise SandboxError(
        "Triton's python stub needs Python 3.11 or 3.12 with a shared libpython; seen: "
        + ("; ".join(seen) or "no interpreter")
        + ". Install one, for instance with `uv python install 3.11`."
    )


def _candidates() -> list[str]:
    base = getattr(sys, "_base_executable", sys.executable)
    found = [str(base)]
    for version in SUPPORTED:
        if path := shutil.which(f"python{version}"):
            found.append(path)
        if uv := shutil.which("uv"):
            answer = subprocess.run(
                [uv, "python", "find", "--system", version], capture_output=True, text=True, timeout=30, check=False
            )
            found.extend(answer.stdout.split("\n")[:1])
    return [path for path in dict.fromkeys(found) if path]


def _build(environment: TritonEnvironment) -> None:
    staging = TritonEnvironment(
        environment.root.with_name(f".building-{uuid.uuid4().hex[:8]}"), environment.interpreter
    )
    try:
        _say(f"building the Triton server's environment in {environment.root} (once, about a minute)")
        venv = staging.root / "venv"
        uv = shutil.which("uv")
        python = str(environment.interpreter.executable)
        if uv:
            _step([uv, "venv", "--quiet", "--python", python, str(venv)])
            install = [uv, "pip", "install", "--quiet", "--python", str(venv / "bin" / "python")]
        else:
            _step([python, "-m", "venv", str(venv)])
            install = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _say("installing the server, ONNX Runtime and the tokeniser")
        _step([*install, "--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(REQUIREMENTS)])
        stubs = staging.packages / "pytriton" / "tritonserver" / "python_backend_stubs"
        stub = stubs / environment.interpreter.version / "triton_python_backend_stub"
        shutil.copy2(stub, staging.backends / "python" / stub.name)
        (staging.backends / "python" / stub.name).chmod(0o755)
        _drop_other_stubs(staging.packages)
        shutil.rmtree(environment.root, ignore_errors=True)
        staging.root.rename(environment.root)
        _say("the Triton server's environment is ready")
    finally:
        shutil.rmtree(staging.root, ignore_errors=True)


def _drop_other_stubs(packages: Path) -> None:
    """Stubs of other Python versions are never used."""
    for other in (packages / "pytriton" / "tritonserver" / "python_backend_stubs").iterdir():
        shutil.rmtree(other, ignore_errors=True)


def _step(argv: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_STEP_SECONDS, env=environment, check=False)
    except subprocess.TimeoutExpired as error:
        raise SandboxError(f"`{' '.join(argv)}` did not end within {_STEP_SECONDS:g} s") from error
    if done.returncode != 0:
        raise SandboxError(f"`{' '.join(argv)}` ended with status {done.returncode}:\n{done.stderr[-2000:]}")


def _say(text: str) -> None:
    print(f"sandbox: {text}", file=sys.stderr, flush=True)
