"""Replicas of a Triton pool with a disk of their own, and what can go wrong with the models on it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from searchops_sandbox.triton import TritonServer
from searchops_workers.engines.repository import model_names

if TYPE_CHECKING:
    from pathlib import Path

MODEL_CODE: Final = "1/model.py"
WRONG_VECTORS: Final = """

class _Rolled:
    def __init__(self, session):
        self._session = session

    def run(self, names, feed):
        return [np.roll(self._session.run(names, feed)[0], 1, axis=1)]


_right = TritonPythonModel.initialize


def _initialize(self, args):
    _right(self, args)
    self._session = _Rolled(self._session)


TritonPythonModel.initialize = _initialize
"""
"""Unit vectors, finite, of the right dimension: READY, and every one of them is another text's."""
NEVER_READY: Final = """

def _initialize(self, args):
    import time

    while True:
        time.sleep(60)


TritonPythonModel.initialize = _initialize
"""
FAILS: Final = """

def _initialize(self, args):
    with open(os.path.join(args["model_repository"], "..", "loads.txt"), "a") as loads:
        loads.write("load\\n")
    raise RuntimeError("no room on the device for 91 MB of weights")


TritonPythonModel.initialize = _initialize
"""
"""Counts each time that it is asked, which the server's own log does not tell apart from other models'."""


class Replica:
    """A server that keeps its models on its own disk, as one does whose node copies the pool's repository.

    Args:
        name: unique among the servers of a sandbox.
        folder: where its log and its copy are.
        repository: the pool's, which is copied.
    """

    def __init__(self, name: str, *, folder: Path, repository: Path) -> None:
        self._shared = repository
        self._own = folder / f"{name}-models"
        self.server = TritonServer(name, folder=folder, repository=self._own)

    @property
    def url(self) -> str:
        """By which conditions name it."""
        return self.server.http_url

    def copy(self, revision: str) -> None:
        """The models of a revision as the pool's repository has them, whatever was done to them here."""
        for name in model_names(revision):
            shutil.rmtree(self._own / name, ignore_errors=True)
            shutil.copytree(self._shared / name, self._own / name)

    def spoil(self, revision: str, code: str) -> None:
        """Let the encoder's own code do something else from its next load on."""
        spoil(self._own, revision, code)

    def cut_short(self, revision: str) -> None:
        """Half of the encoder's graph, as a copy under way or one that was killed leaves it."""
        graph = self._own / model_names(revision)[0] / "1" / "model.onnx"
        content = graph.read_bytes()
        graph.write_bytes(content[: len(content) // 2])

    def hollow(self, revision: str) -> None:
        """The encoder's directory before its files came; Triton can hang on it for good."""
        for file in (self._own / model_names(revision)[0] / "1").iterdir():
            if file.is_file():
                file.unlink()

    def neighbour(self, revision: str, name: str) -> None:
        """Another model on the same disk: a tokeniser, which needs nothing else."""
        source = self._own / model_names(revision)[1]
        target = self._own / name
        shutil.copytree(source, target)
        config = target / "config.pbtxt"
        config.write_text(config.read_text().replace(source.name, name))

    def loads(self) -> int:
        """How often a model with the code `FAILS` was asked to load."""
        counted = self._own / "loads.txt"
        return len(counted.read_text().splitlines()) if counted.exists() else 0


def spoil(repository: Path, revision: str, code: str) -> None:
    """Let a published encoder's code do something else from its next load on; `mend` undoes it."""
    path = repository / model_names(revision)[0] / MODEL_CODE
    shutil.copyfile(path, repository.parent / f"{revision}.right.py")
    path.write_text(path.read_text() + code)


def mend(repository: Path, revision: str) -> None:
    """The encoder's code as it was before `spoil`."""
    right = repository.parent / f"{revision}.right.py"
    right.replace(repository / model_names(revision)[0] / MODEL_CODE)
