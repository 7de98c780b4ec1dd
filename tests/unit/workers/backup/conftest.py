"""A cell of several nodes in memory, a store in memory, and a backup to be made of it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import fsspec
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def prefix() -> Iterator[str]:
    """A tenant's prefix in a store of this process."""
    root = f"memory://backups-{uuid.uuid4().hex[:8]}"
    yield f"{root}/backups/prod/shop/acme"
    system, path = fsspec.core.url_to_fs(root)
    if system.exists(path):
        system.rm(path, recursive=True)
