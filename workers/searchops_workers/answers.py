"""How a worker Job answers: the result object first, then the termination message (at most 4 KiB)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from searchops.api.tasks import TERMINATION_LIMIT, TERMINATION_VARIABLE
from searchops_workers.engines.storage import write_bytes

if TYPE_CHECKING:
    from searchops.api.meta import ApiModel

KUBERNETES_DEFAULT = "/dev/termination-log"


def answer(result: ApiModel, uri: str) -> None:
    """Write the answer whole to `uri`, then as termination message where it fits.

    Raises:
        OSError: the result object could not be written; then there is no termination message either, and no verdict.
    """
    content = result.model_dump_json(by_alias=True, exclude_none=True).encode()
    write_bytes(uri, content)
    terminate_with(content)


def terminate_with(content: bytes) -> None:
    """The termination message; one that is too long is left out, since the result object holds it."""
    if len(content) > TERMINATION_LIMIT:
        return
    path = Path(os.environ.get(TERMINATION_VARIABLE, KUBERNETES_DEFAULT))
    if path.parent.is_dir() and os.access(path.parent, os.W_OK):
        path.write_bytes(content)
