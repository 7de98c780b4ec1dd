"""The reindex Job's entry: one slice of one tenant."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qdrant_client import AsyncQdrantClient

from searchops.api.tasks import (
    EXIT_BAD_MODEL,
    EXIT_BAD_TASK,
    EXIT_OK,
    EXIT_RETRY,
    EXIT_SOURCE_UNREADABLE,
    EXIT_TOO_MANY_FAILURES,
    SLICE_VARIABLE,
    TOKEN_VARIABLE,
    ReindexTask,
    SliceResult,
)
from searchops_workers.answers import answer
from searchops_workers.encoders.errors import EncoderError, EncoderRefused
from searchops_workers.encoders.triton import PooledEncoder, TritonTextEncoder
from searchops_workers.engines.storage import read_bytes, write_bytes
from searchops_workers.reindex.pipeline import Pipeline, Tally
from searchops_workers.reindex.sides import BlueGreenSide, NamedVectorSide, Side
from searchops_workers.retrieval.offline import CatalogueError, read_catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLES = 24
REQUEST_SECONDS = 60


class SourceUnreadable(RuntimeError):  # noqa: N818 - named for what is the case
    """The catalogue could not be read."""


def run_reindex(task: ReindexTask, environment: Mapping[str, str] = os.environ) -> int:
    """Run one slice and answer; returns the exit code."""
    text = environment.get(SLICE_VARIABLE, "")
    if not text.isdigit() or int(text) >= task.slices:
        return _say(f"{SLICE_VARIABLE} is {text!r}; wanted a number below {task.slices}", EXIT_BAD_TASK)
    index = int(text)
    started = time.monotonic()
    try:
        result = asyncio.run(_run(task, index, environment.get(TOKEN_VARIABLE, "")))
    except EncoderRefused as error:
        result = SliceResult(slice=index, exit_code=EXIT_BAD_MODEL, message=str(error)[:1024])
    except (CatalogueError, SourceUnreadable) as error:
        result = SliceResult(slice=index, exit_code=EXIT_SOURCE_UNREADABLE, message=str(error)[:1024])
    except (EncoderError, OSError, RuntimeError) as error:
        return _say(f"slice {index}: {type(error).__name__}: {error}; it is tried again", EXIT_RETRY)
    result = result.model_copy(update={"seconds": round(time.monotonic() - started, 3)})
    answer(result, f"{task.result_uri}/slice-{index}.json")
    return _say(f"slice {index}: {result.embedded} embedded, {result.failed} failed {result.message}", result.exit_code)


def _say(text: str, code: int) -> int:
    print(text, flush=True)
    return code


async def _run(task: ReindexTask, index: int, token: str) -> SliceResult:
    client = AsyncQdrantClient(
        url=task.cell.url,
        api_key=token or None,
        grpc_port=task.cell.grpc_port or 6334,
        prefer_grpc=False,
        timeout=REQUEST_SECONDS,
        check_compatibility=False,
    )
    encoder: PooledEncoder | None = None
    try:
        if task.target.encoder is not None:
            encoder = await _encoder(task)
        side = _side(task, index, client)
        rate = task.max_points_per_second / task.slices
        tally = await Pipeline(side, encoder, batch=task.batch, points_per_second=rate).run()
        if tally.failed:
            _dead_letters(task, index, tally)
        cosine, sampled = await _verify(side, encoder)
    finally:
        await client.close()
        if encoder is not None:
            await encoder.close()
    total = tally.embedded + len(tally.failed)
    limit = float(task.max_failed_percent) / 100
    code, message = EXIT_OK, ""
    if tally.failed and total and len(tally.failed) / total > max(limit, 1 / max(total, 1)):
        code = EXIT_TOO_MANY_FAILURES
        message = (
            f"{len(tally.failed)} of {total} documents of the slice could not be embedded, at most "
            f"{task.max_failed_percent} % may; the first: {tally.failed[0][0]}: {tally.failed[0][1]}"
        )
    return SliceResult(
        slice=index,
        documents=total,
        embedded=tally.embedded,
        failed=len(tally.failed),
        sampled=sampled,
        sample_min_cosine=cosine,
        exit_code=code,
        message=message,
    )


async def _encoder(task: ReindexTask) -> PooledEncoder:
    """Every server of the pool, each checked to serve the very build that queries will use."""
    name = task.target.encoder or ""
    members = [
        await TritonTextEncoder.connect(url, name, deadline=REQUEST_SECONDS, manifest_digest=task.manifest_digest)
        for url in task.servers
    ]
    return PooledEncoder(members)


def _side(task: ReindexTask, index: int, client: AsyncQdrantClient) -> Side:
    if task.strategy == "NamedVector":
        return NamedVectorSide(client, task, index)
    products = _catalogue(task.source_uri) if task.source_uri is not None else None
    return BlueGreenSide(client, task, index, products)


def _catalogue(uri: str) -> list[dict[str, Any]]:
    """Products of an NDJSON or Parquet catalogue."""
    try:
        data = read_bytes(uri)
    except (OSError, ValueError) as error:
        raise SourceUnreadable(f"{uri} could not be read: {error}") from error
    with tempfile.TemporaryDirectory(prefix="searchops-catalogue-") as folder:
        path = Path(folder) / uri.rsplit("/", 1)[-1]
        path.write_bytes(data)
        if path.suffix == ".parquet":
            import pyarrow.parquet

            rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
            return rows
        return list(read_catalogue(path))


def _dead_letters(task: ReindexTask, index: int, tally: Tally) -> None:
    lines = [json.dumps({"id": name, "reason": reason}, ensure_ascii=False) for name, reason in tally.failed]
    write_bytes(f"{task.state}/dead-letters/slice-{index}.jsonl", ("\n".join(lines) + "\n").encode())


async def _verify(side: Side, encoder: PooledEncoder | None) -> tuple[float | None, int]:
    """The smallest cosine of stored vectors to fresh encodings."""
    if encoder is None:
        return None, 0
    sample = await side.sample(SAMPLES)
    if not sample:
        return None, 0
    fresh = np.asarray(await encoder.encode([text for text, _ in sample]), dtype=np.float64)
    stored = np.asarray([vector for _, vector in sample], dtype=np.float64)
    norms = np.linalg.norm(stored, axis=1) * np.linalg.norm(fresh, axis=1)
    cosines = (stored * fresh).sum(axis=1) / np.maximum(norms, 1e-12)
    return float(cosines.min()), len(sample)
