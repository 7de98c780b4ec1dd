"""A Job's one try: an answer that is written, or none and another try."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from searchops_workers.answers import answer
from searchops_workers.encoders.errors import EncoderError
from searchops_workers.engines.stages import BuildError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from searchops.api.meta import ApiModel

Result = TypeVar("Result", bound="ApiModel")


def tried(work: Coroutine[None, None, Result], uri: str, what: str) -> Result | None:
    """What the work came to, once it is written to its URI; None where the infrastructure was at fault.

    Args:
        work: makes the answer.
        uri: where the answer goes.
        what: is tried again, for people.
    """
    try:
        result = asyncio.run(work)
        answer(result, uri)
    except (EncoderError, OSError, BuildError) as error:
        print(f"{type(error).__name__}: {error}; {what} again", flush=True)
        return None
    return result
