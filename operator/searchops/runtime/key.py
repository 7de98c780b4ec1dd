"""Names of objects inside one kind."""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """Namespace and name; cluster-scoped objects have an empty namespace."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Identity(NamedTuple):
    """What a metadata-only LIST tells of one object."""

    key: Key
    uid: str
    resource_version: str
