"""The ONNX Runtime backend: the exported graph is the engine; building is proving that the runtime runs it."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from searchops_workers.encoders.errors import EncoderError
from searchops_workers.encoders.onnx_runtime import open_session
from searchops_workers.encoders.settings import ATTENTION_MASK, INPUT_IDS, OUTPUT
from searchops_workers.engines.stages import BuildError, BuildStage

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from searchops_workers.engines.backend import EngineRequest


class OnnxRuntimeBackend:
    """Serves the ONNX file as it is."""

    @property
    def name(self) -> str:
        """As the status names it."""
        return "ONNXRuntime"

    def preflight(self) -> str:
        """The hardware that engines are built for; a graph fits all."""
        return "any"

    def runtimes(self) -> dict[str, str]:
        """Versions that decide what is built."""
        return {"onnxruntime": version("onnxruntime")}

    def build(self, request: EngineRequest) -> Path:
        """Nothing to compile: the graph itself, after the runtime has loaded it.

        Raises:
            BuildError: stage PARSE, where the runtime cannot run the graph.
        """
        self.runner(request.onnx)
        return request.onnx

    def runner(self, engine: Path) -> OnnxGraph:
        """A session on the engine."""
        return OnnxGraph(engine)


class OnnxGraph:
    """One session; `run` is what `accuracy.GraphRunner` asks for.

    Raises:
        BuildError: stage PARSE, where the runtime cannot load the graph.
    """

    def __init__(self, engine: Path, *, threads: int = 2) -> None:
        try:
            self._session = open_session(engine, threads=threads)
        except EncoderError as error:
            raise BuildError(BuildStage.PARSE, f"{error}; try another engine.precision") from error

    def run(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[Any]:
        """One row a text.

        Raises:
            BuildError: stage ENGINE, where the runtime fails on the batch.
        """
        feed = {INPUT_IDS: input_ids, ATTENTION_MASK: attention_mask}
        try:
            answer: NDArray[Any] = self._session.run([OUTPUT], feed)[0]
        except Exception as error:  # onnxruntime raises its own classes, all plain Exceptions
            raise BuildError(BuildStage.ENGINE, f"ONNX Runtime failed on tokens {input_ids.shape}: {error}") from error
        return answer
