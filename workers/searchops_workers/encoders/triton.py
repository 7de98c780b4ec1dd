"""Encoding through Triton: text in for searches, tokens in for bulk work, and a pool of servers as one encoder."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from searchops_workers.encoders.errors import EncoderRefused, EncoderUnavailable, ModelNotLoaded
from searchops_workers.encoders.protocol import Encoder, Vectors, check_vectors
from searchops_workers.encoders.settings import (
    ATTENTION_MASK,
    INPUT_IDS,
    OUTPUT,
    TEXT,
    TOKEN_SUFFIX,
    TOKENISER_SUFFIX,
    TOKENIZER_FILE,
    EncoderSettings,
)
from searchops_workers.encoders.tokenise import TextTokeniser, TokenBatch, batch_tokens
from searchops_workers.encoders.triton_client import ServedModel, TritonConnection, as_bytes

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

Result = TypeVar("Result")


class TritonTextEncoder:
    """The model ``<name>``: texts go in, the server tokenises."""

    def __init__(self, connection: TritonConnection, served: ServedModel) -> None:
        self._connection = connection
        self.served = served

    @classmethod
    async def connect(
        cls, url: str, model: str, *, deadline: float = 10.0, concurrency: int = 4, manifest_digest: str | None = None
    ) -> TritonTextEncoder:
        """Ask the server what it serves, and check it.

        Args:
            url: ``host:port`` of the gRPC API.
            model: a revision's name.
            deadline: seconds a call.
            concurrency: calls in flight.
            manifest_digest: where given, a model published with another manifest is refused.

        Raises:
            EncoderError: as in `TritonConnection.describe`.
        """
        connection = TritonConnection(url, deadline=deadline, concurrency=concurrency)
        try:
            served = await _describe(connection, model, manifest_digest)
        except BaseException:
            await connection.close()
            raise
        return cls(connection, served)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.served.settings.dimension

    @property
    def max_tokens(self) -> int:
        """Tokens after which a text is cut."""
        return self.served.settings.max_tokens

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """One float32 row a text; raises `EncoderError`."""
        size = self.served.settings.max_batch
        pieces = [texts[start : start + size] for start in range(0, len(texts), size)]
        parts = await _all([self._piece(piece) for piece in pieces])
        return _joined(parts, self.dimension)

    async def _piece(self, texts: Sequence[str]) -> Vectors:
        answer = await self._connection.infer(self.served.name, {TEXT: as_bytes(texts)}, [OUTPUT])
        source = f"{self.served.name} on {self._connection.url}"
        return check_vectors(answer[OUTPUT], count=len(texts), dimension=self.dimension, source=source)

    async def close(self) -> None:
        """Close the channel."""
        await self._connection.close()


class Tokeniser(Protocol):
    """Where a token encoder gets its tokens from."""

    async def batches(self, texts: Sequence[str]) -> list[TokenBatch]:
        """Padded batches that together hold every text once."""
        ...


class LocalTokeniser:
    """The artifact folder's tokeniser, in a thread of its own."""

    def __init__(self, folder: Path, settings: EncoderSettings) -> None:
        self._tokeniser = TextTokeniser(folder / TOKENIZER_FILE, settings)

    async def batches(self, texts: Sequence[str]) -> list[TokenBatch]:
        """Padded batches of the texts."""
        return await asyncio.to_thread(self._tokeniser.batches, texts)


class ServedTokeniser:
    """The model ``<name>-tok`` of the same server."""

    def __init__(self, connection: TritonConnection, model: str, settings: EncoderSettings) -> None:
        self._connection = connection
        self._model = model
        self._settings = settings

    async def batches(self, texts: Sequence[str]) -> list[TokenBatch]:
        """Padded batches of the texts."""
        size = self._settings.max_batch
        pieces = [texts[start : start + size] for start in range(0, len(texts), size)]
        ids = await _all([self._tokens(piece) for piece in pieces])
        return batch_tokens(list(itertools.chain.from_iterable(ids)), self._settings)

    async def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        answer = await self._connection.infer(self._model, {TEXT: as_bytes(texts)}, [INPUT_IDS, ATTENTION_MASK])
        lengths = answer[ATTENTION_MASK].sum(axis=1)
        return [row[:length].tolist() for row, length in zip(answer[INPUT_IDS], lengths, strict=True)]


class TritonTokenEncoder:
    """The model ``<name>-enc``: the caller tokenises, sorts by length and fills buckets; the way for bulk work."""

    def __init__(self, connection: TritonConnection, served: ServedModel, tokeniser: Tokeniser) -> None:
        self._connection = connection
        self._tokeniser = tokeniser
        self.served = served

    @classmethod
    async def connect(
        cls,
        url: str,
        model: str,
        *,
        artifact: Path | None = None,
        deadline: float = 60.0,
        concurrency: int = 2,
        manifest_digest: str | None = None,
    ) -> TritonTokenEncoder:
        """Ask the server what it serves, and check it.

        Args:
            url: ``host:port`` of the gRPC API.
            model: a revision's name (without ``-enc``).
            artifact: folder with the revision's ``tokenizer.json``; without it the server's ``<name>-tok`` is asked.
            deadline: seconds a call.
            concurrency: calls in flight.
            manifest_digest: where given, a model published with another manifest is refused.

        Raises:
            EncoderError: as in `TritonConnection.describe`.
        """
        connection = TritonConnection(url, deadline=deadline, concurrency=concurrency)
        try:
            served = await _describe(connection, model + TOKEN_SUFFIX, manifest_digest)
            tokeniser: Tokeniser
            if artifact is not None:
                tokeniser = LocalTokeniser(artifact, served.settings)
            else:
                await _describe(connection, model + TOKENISER_SUFFIX, served.manifest_digest)
                tokeniser = ServedTokeniser(connection, model + TOKENISER_SUFFIX, served.settings)
        except BaseException:
            await connection.close()
            raise
        return cls(connection, served, tokeniser)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.served.settings.dimension

    @property
    def max_tokens(self) -> int:
        """Tokens after which a text is cut."""
        return self.served.settings.max_tokens

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """One float32 row a text; raises `EncoderError`."""
        batches = await self._tokeniser.batches(texts)
        parts = await _all([self.encode_batch(batch) for batch in batches])
        out: Vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for batch, part in zip(batches, parts, strict=True):
            out[list(batch.rows)] = part
        return out

    async def encode_batch(self, batch: TokenBatch) -> Vectors:
        """The vectors of one padded batch, in its own order; raises `EncoderError`."""
        feed = {INPUT_IDS: batch.input_ids, ATTENTION_MASK: batch.attention_mask}
        answer = await self._connection.infer(self.served.name, feed, [OUTPUT])
        source = f"{self.served.name} on {self._connection.url}"
        return check_vectors(answer[OUTPUT], count=len(batch.rows), dimension=self.dimension, source=source)

    async def close(self) -> None:
        """Close the channel."""
        await self._connection.close()


class PooledEncoder:
    """Several servers of one model as one encoder: turn by turn, going on to the next where one fails.

    Raises:
        ValueError: without members, or where they differ in dimension or cut.
    """

    def __init__(self, members: Sequence[Encoder]) -> None:
        if not members:
            raise ValueError("a pool needs at least one encoder")
        if len({(member.dimension, member.max_tokens) for member in members}) != 1:
            raise ValueError("the encoders of a pool must have one dimension and one cut")
        self._members = tuple(members)
        self._turn = itertools.cycle(range(len(members)))

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._members[0].dimension

    @property
    def max_tokens(self) -> int:
        """Tokens after which a text is cut."""
        return self._members[0].max_tokens

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """One float32 row a text; each member is tried once before the last error is raised."""
        first = next(self._turn)
        failure: EncoderUnavailable | ModelNotLoaded | None = None
        for offset in range(len(self._members)):
            try:
                return await self._members[(first + offset) % len(self._members)].encode(texts)
            except (EncoderUnavailable, ModelNotLoaded) as error:
                failure = error
        raise failure or EncoderUnavailable("no server was asked")

    async def close(self) -> None:
        """Close every member."""
        for member in self._members:
            await member.close()


async def _describe(connection: TritonConnection, model: str, manifest_digest: str | None) -> ServedModel:
    served = await connection.describe(model)
    if manifest_digest is not None and served.manifest_digest != manifest_digest:
        raise EncoderRefused(
            f"{model} on {connection.url} was published with manifest {served.manifest_digest or '(none)'}, wanted "
            f"{manifest_digest}: it is another build; its vectors must not be mixed with the wanted ones"
        )
    return served


async def _all(calls: Sequence[Coroutine[object, object, Result]]) -> list[Result]:
    """Every result in order; the first failure cancels the rest and is raised as it is."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _joined(parts: Sequence[Vectors], dimension: int) -> Vectors:
    return np.concatenate(parts) if parts else np.zeros((0, dimension), dtype=np.float32)
