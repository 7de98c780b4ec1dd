"""A tenant that is rebuilt, a labelled double of Triton with a deterministic encoder, and the worker as a process."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import jwt
import numpy as np
from qdrant_client import AsyncQdrantClient
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor

from integration import reindex_process
from searchops.adapters.qdrant import QdrantCells
from searchops.api.observed import CellRegistration, CollectionDesign, StrictMode
from searchops.api.retrieval import AnalyserSettings, Binding, FieldRoles, RetrievalProfile, point_id
from searchops.api.tasks import CellAddress, ReindexTask, SliceResult
from searchops.planning.schema import LARGEST_BATCH, QUERY_LIMIT
from searchops_sandbox.ports import free_port
from searchops_workers.gateway.bodies import Item
from searchops_workers.gateway.callers import Caller
from searchops_workers.gateway.cells import Cells
from searchops_workers.gateway.encoders import TritonEncoders
from searchops_workers.gateway.settings import CellEndpoint, EndpointSource, GatewaySettings
from searchops_workers.gateway.writes import Versions, Writer
from searchops_workers.retrieval.documents import document_of, product_of, render

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from multiprocessing.context import ForkServerProcess

    from searchops_sandbox.qdrant.cell import QdrantCell

DIMENSION = 64
POISON = "poison"
MANIFEST = "sha256:" + "a" * 64
UNLIMITED = 4_000_000_000
STRICT = StrictMode(100_000, 400_000_000, UNLIMITED, UNLIMITED, LARGEST_BATCH, QUERY_LIMIT)
ANALYSER = AnalyserSettings(languages=("en",))
COMMAND = Path(sys.executable).parent / "searchops-worker"


def encoded(model: str, text: str) -> list[float]:
    """A unit vector of exact binary fractions: stored and fresh ones can be compared bit by bit."""
    bits = np.unpackbits(np.frombuffer(hashlib.sha256(f"{model}\0{text}".encode()).digest()[:8], np.uint8))
    return [0.125 if bit else -0.125 for bit in bits]


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A labelled double of a Triton server: the real protocol, vectors out of a hash, faults at will.

    Attributes:
        latency: seconds that an inference takes.
        texts: everything that was encoded, in order.
        down: whether every inference is refused as unavailable.
    """

    def __init__(self) -> None:
        self.latency = 0.0
        self.texts: list[str] = []
        self.down = False
        self.manifest = MANIFEST
        self.dimension = DIMENSION
        self.entered = asyncio.Event()
        self.gate: asyncio.Event | None = None
        self.url = f"127.0.0.1:{free_port()}"
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.url)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        del context
        settings = {"dimension": self.dimension, "max_tokens": 64, "buckets": [64], "max_batch": 64}
        config = model_config_pb2.ModelConfig(name=request.name)
        config.parameters["searchops_encoder"].string_value = json.dumps(settings)
        config.parameters["searchops_manifest"].string_value = self.manifest
        return service_pb2.ModelConfigResponse(config=config)

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(self.latency)
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down in this test")
        texts = [raw.decode() for raw in deserialize_bytes_tensor(request.raw_input_contents[0])]
        if any(POISON in text for text in texts):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a text that no tokeniser takes")
        self.texts += texts
        rows = np.array([encoded(request.model_name, text) for text in texts], dtype=np.float32)
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        output = answer.outputs.add(name="sentence_embedding", datatype="FP32")
        output.shape.extend(rows.shape)
        answer.raw_output_contents.append(rows.tobytes())
        return answer


@dataclass
class Answer:
    """What a worker process said."""

    code: int
    output: str
    result: SliceResult | None


def products(count: int, *, poison: Iterable[int] = ()) -> list[dict[str, Any]]:
    bad = set(poison)
    return [
        {
            "id": f"sku-{number}",
            "title": f"Hex nut M{number}" + (f" {POISON}" if number in bad else ""),
            "sku": f"HN-{number:04d}",
            "price": number / 4,
            "attributes": {"thread": f"M{number % 30}", "pack": number % 7},
        }
        for number in range(count)
    ]


class Tenant:
    """One tenant with both sides of a rebuild, and every way to write to it."""

    def __init__(self, cell: QdrantCell, triton: FakeTriton, folder: Path) -> None:
        self.double = cell
        self.triton = triton
        self.folder = folder
        self.alias = f"prod.shop.t{uuid.uuid4().hex[:8]}"
        self.ports = QdrantCells()
        self.registration = CellRegistration("eu-1", {}, (cell.rest_url,), None, 1000, api_key=cell.api_key)
        self.admin = AsyncQdrantClient(
            url=cell.rest_url, headers={"api-key": cell.api_key}, check_compatibility=False, timeout=30
        )
        settings = GatewaySettings(cells={"eu-1": CellEndpoint(url=cell.rest_url)}, servers=(triton.url,))
        self.cells = Cells(EndpointSource(settings), timeout=30)
        self.encoders = TritonEncoders(EndpointSource(settings), clock=time.monotonic)
        self.writer = Writer(self.cells, self.encoders, Versions(time.time), batch=64)

    async def close(self) -> None:
        await self.encoders.close()
        await self.cells.close()
        for side in ("g0", "g1"):
            await self.admin.delete_collection(f"{self.alias}@{side}")
        await self.admin.close()
        await self.ports.close()

    def binding(self, model: str, *, side: str | None = None, document: str = "{title}. {attributes}") -> Binding:
        return Binding(
            model="shop",
            revision=model,
            encoder=model,
            vector=f"d-{model}",
            dimension=DIMENSION,
            manifest_digest=MANIFEST,
            analyser=ANALYSER,
            profile=RetrievalProfile(name="plain"),
            document=document,
            fields=FieldRoles(code=("sku",)),
            side=f"{self.alias}@{side}" if side else None,
        )

    async def create(self, generation: int, bindings: Sequence[Binding]) -> str:
        """A collection as the operator makes it, under its side's alias; generation 0 also under the tenant's."""
        name = f"{self.alias}@g{generation}"
        a8 = ANALYSER.analyser_id
        metadata = {"searchops.dev/fleet": "prod", "searchops.dev/uid": "u1", "searchops.dev/generation": "1"}
        dense = tuple((binding.vector or "", DIMENSION) for binding in bindings)
        sparse = (f"lex-{a8}", f"tri-{a8}")
        wanted = CollectionDesign(name, dense, sparse, (), 1, 1, STRICT, tuple(metadata.items()))
        await self.ports.create_collection(self.registration, wanted)
        for key in ("_deleted", "_version"):
            await self.ports.create_index(self.registration, name, key, "integer")
        for alias in (f"{self.alias}@{'ab'[generation % 2]}", *((self.alias,) if generation == 0 else ())):
            await self.ports.point_alias(self.registration, alias, name)
        return name

    def caller(self) -> Caller:
        names = {self.alias: "prw", f"{self.alias}@a": "prw", f"{self.alias}@b": "prw"}
        return Caller(self.alias.partition(".")[2], self.alias, "eu-1", names, self.token(names))

    def token(self, rights: Mapping[str, str], *, seconds: int = 600) -> str:
        access = [{"collection": name, "access": right} for name, right in rights.items()]
        claims = {"exp": int(time.time()) + seconds, "access": access, "subject": "reindex"}
        return jwt.encode(claims, self.double.api_key, algorithm="HS256")

    def task(self, strategy: str, target: Binding, **changes: Any) -> ReindexTask:
        named = strategy == "NamedVector"
        values: dict[str, Any] = {
            "tenant": self.alias,
            "strategy": strategy,
            "cell": CellAddress(url=self.double.rest_url),
            "source_collection": None if named else f"{self.alias}@a",
            "target_collection": self.alias if named else f"{self.alias}@b",
            "target": target,
            "manifest_digest": MANIFEST,
            "servers": (self.triton.url,),
            "slices": 1,
            "batch": 16,
            "state": f"file://{self.folder}/state/{self.alias}",
            "result_uri": f"file://{self.folder}/results/{self.alias}",
            **changes,
        }
        return ReindexTask.model_validate(values)

    def scoped(self, task: ReindexTask) -> str:
        """The token that the operator makes for the Job: exactly these collections."""
        rights = {task.source_collection: "r"} if task.source_collection else {}
        return self.token({**rights, task.target_collection: "prw"})

    async def points(self, collection: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        offset: Any = None
        while True:
            page, offset = await self.admin.scroll(
                collection, limit=QUERY_LIMIT, offset=offset, with_payload=True, with_vectors=True
            )
            found |= {str(point.id): point for point in page}
            if offset is None:
                return found


def items(wanted: Sequence[dict[str, Any]]) -> list[Item]:
    return [Item(index, product["id"], product_of(product)) for index, product in enumerate(wanted)]


def expected(binding: Binding, product: Mapping[str, Any]) -> dict[str, Any]:
    """Every vector of a product, encoded anew."""
    document = document_of(binding, product)
    vectors: dict[str, Any] = {
        name: (list(vector.indices), [float(np.float32(value)) for value in vector.values])
        for name, vector in document.lexical.items()
    }
    return {**vectors, binding.vector or "": encoded(binding.encoder or "", render(binding.document, product))}


def stored(point: Any) -> dict[str, Any]:
    """A point's vectors in the form of `expected`."""
    return {
        name: (list(vector.indices), list(vector.values)) if hasattr(vector, "indices") else list(vector)
        for name, vector in (point.vector or {}).items()
    }


@dataclass
class Worker:
    """`searchops-worker run` as a Job's container would start it, in a process of its own."""

    task: ReindexTask
    index: int
    token: str
    folder: Path
    process: ForkServerProcess | None = field(default=None)

    async def start(self) -> Worker:
        environment = self.environment()
        self.process = await asyncio.to_thread(reindex_process.start, environment, self.printed)
        return self

    def environment(self) -> dict[str, str]:
        """What the operator gives the container."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SEARCHOPS")}
        return environment | {
            "SEARCHOPS_TASK": self.task.model_dump_json(by_alias=True),
            "SEARCHOPS_CELL_TOKEN": self.token,
            "JOB_COMPLETION_INDEX": str(self.index),
            "SEARCHOPS_TERMINATION_LOG": str(self.termination),
            "PYTHONWARNINGS": "error",
        }

    @property
    def termination(self) -> Path:
        return self.folder / f"termination-{self.task.tenant}-{self.index}"

    @property
    def printed(self) -> Path:
        return self.folder / f"printed-{self.task.tenant}-{self.index}"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.is_alive()

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait for something that the running worker brings about."""
        for _ in range(1200):
            if await condition():
                return
            if not self.alive:
                raise AssertionError(f"the worker ended before: {(await self.wait()).output}")
            await asyncio.sleep(0.05)
        raise AssertionError("the condition never came true")

    async def kill(self) -> None:
        """SIGKILL, as a node that fails."""
        assert self.process is not None
        self.process.kill()
        await asyncio.to_thread(self.process.join, 30)
        assert not self.alive

    async def wait(self) -> Answer:
        assert self.process is not None
        await asyncio.to_thread(self.process.join, 120)
        code = self.process.exitcode
        assert code is not None, "the worker did not end"
        return self.said(code, self.printed.read_text())

    async def cold(self) -> Answer:
        """The installed command from nothing, imports and all."""
        command = await asyncio.create_subprocess_exec(
            str(COMMAND),
            "run",
            env=self.environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(command.communicate(), 120)
        return self.said(command.returncode or 0, output.decode())

    def said(self, code: int, text: str) -> Answer:
        assert self.token not in text, "the token must never be printed"
        path = Path(f"{self.task.result_uri.removeprefix('file://')}/slice-{self.index}.json")
        result = SliceResult.model_validate_json(path.read_bytes()) if path.exists() else None
        return Answer(code, text, result)


async def run_slices(tenant: Tenant, task: ReindexTask) -> list[Answer]:
    """Every slice at once, with the Job's own token."""
    token = tenant.scoped(task)
    workers = [await Worker(task, index, token, tenant.folder).start() for index in range(task.slices)]
    return list(await asyncio.gather(*(worker.wait() for worker in workers)))


def vectors_are_fresh(binding: Binding, points: Mapping[str, Any]) -> None:
    """Every vector of every point is bit-equal to a fresh encoding of its payload."""
    for point in points.values():
        product = {key: value for key, value in point.payload.items() if not key.startswith("_")}
        wanted = expected(binding, {**product, "id": point.payload["_id"]})
        have = {name: vector for name, vector in stored(point).items() if name in wanted}
        assert have == wanted, point.payload["_id"]


def ids(wanted: Iterable[dict[str, Any]]) -> set[str]:
    return {point_id(product["id"]) for product in wanted}
