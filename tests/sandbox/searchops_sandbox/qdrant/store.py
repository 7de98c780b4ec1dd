"""Collections and aliases of one cell, kept in a folder so that a SIGKILL loses nothing acknowledged."""

from __future__ import annotations

import json
import shutil
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from qdrant_client.http import models

from searchops_sandbox.qdrant import config as configuration
from searchops_sandbox.qdrant.collection import Collection
from searchops_sandbox.qdrant.errors import exists, invalid, no_collection, not_found, wrong_input
from searchops_sandbox.qdrant.results import write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_NAME = 255
_FORBIDDEN = '<>:"/\\|?*\0'


class Store:
    """Everything that one cell holds.

    Args:
        folder: where it is kept.
        release: major and minor version that the double answers as.
        clock: seconds, monotonic.
        max_collections: the server's `storage.max_collections`, or None.
    """

    def __init__(
        self, folder: Path, release: tuple[int, int], clock: Callable[[], float], max_collections: int | None = None
    ) -> None:
        self._collections_folder = folder / "collections"
        self._trash = folder / "trash"
        self._aliases_file = folder / "aliases.json"
        self.snapshots_folder = folder / "snapshots"
        self._release = release
        self._clock = clock
        self._max = max_collections
        self.collections: dict[str, Collection] = {}
        self.aliases: dict[str, str] = {}
        self._load()

    def _load(self) -> None:
        for folder in (self._collections_folder, self._trash):
            folder.mkdir(parents=True, exist_ok=True)
        for leftover in self._trash.iterdir():
            shutil.rmtree(leftover)
        for folder in sorted(self._collections_folder.iterdir()):
            state_file = folder / "config.json"
            if not state_file.exists():
                shutil.rmtree(folder)
                continue
            state = json.loads(state_file.read_text())
            collection = Collection(state["name"], folder, state, self._release, self._clock)
            self.collections[collection.name] = collection
            # As the server does: every shard is open before the first request.
            collection.open()
        if self._aliases_file.exists():
            self.aliases = json.loads(self._aliases_file.read_text())
        self.aliases = {alias: name for alias, name in self.aliases.items() if name in self.collections}

    def close(self) -> None:
        """Flush and close every open shard."""
        for collection in self.collections.values():
            collection.close()

    def resolve(self, name: str) -> Collection:
        """The collection of that name or alias.

        Raises:
            ApiError: 404.
        """
        collection = self.collections.get(self.aliases.get(name, name))
        if collection is None:
            raise no_collection(name)
        return collection

    def folder_for(self, name: str) -> Path:
        """Folder of a collection; names may hold characters that paths may not."""
        return self._collections_folder / quote(name, safe="@.-_ ")

    def create(self, name: str, body: models.CreateCollection) -> Collection:
        """Create a collection.

        Raises:
            ApiError: 400, 409, 422 or 501.
        """
        self.check_new_name(name)
        config = configuration.new(body, self._release)
        return self._add(name, config)

    def check_new_name(self, name: str) -> None:
        """Whether a collection of this name may be created.

        Raises:
            ApiError: 422 for the name, 409 for a collection, 400 for an alias of that name or a full server.
        """
        check_name(name)
        if name in self.collections:
            raise exists(name)
        if name in self.aliases:
            raise wrong_input(f"Can't create collection with name {name}. Alias with the same name already exists")
        if self._max is not None and len(self.collections) >= self._max:
            raise wrong_input(f"Can't create more than {self._max} collections")

    def _add(self, name: str, config: dict[str, Any]) -> Collection:
        folder = self.folder_for(name)
        try:
            collection = Collection.create(name, folder, config, self._release, self._clock)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.collections[name] = collection
        return collection

    def adopt(self, name: str, prepared: Path, state: dict[str, Any]) -> Collection:
        """Put a prepared folder (from a snapshot) in the place of a collection."""
        if name in self.collections:
            self._remove(name)
        folder = self.folder_for(name)
        prepared.rename(folder)
        collection = Collection(name, folder, state, self._release, self._clock)
        collection.save()
        self.collections[name] = collection
        return collection

    def delete(self, name: str) -> bool:
        """Drop a collection and its aliases; False (and nothing done) for an alias or an unknown name."""
        if name not in self.collections:
            return False
        self.aliases = {alias: target for alias, target in self.aliases.items() if target != name}
        self._save_aliases()
        self._remove(name)
        return True

    def _remove(self, name: str) -> None:
        collection = self.collections.pop(name)
        collection.discard()
        grave = self._trash / uuid.uuid4().hex
        collection.folder.rename(grave)
        shutil.rmtree(grave)

    def change_aliases(self, actions: list[Any]) -> None:
        """Apply alias actions one by one: those before a bad one stay applied.

        Raises:
            ApiError: 404 for an unknown collection or alias, 409 for an alias named like a collection.
        """
        for action in actions:
            match action:
                case models.CreateAliasOperation():
                    self._create_alias(action.create_alias)
                case models.DeleteAliasOperation():
                    self.aliases.pop(action.delete_alias.alias_name, None)
                case models.RenameAliasOperation():
                    rename = action.rename_alias
                    if rename.old_alias_name not in self.aliases:
                        raise not_found(f"Alias {rename.old_alias_name} does not exists!")
                    if rename.new_alias_name in self.collections:
                        raise exists(rename.new_alias_name)
                    check_name(rename.new_alias_name)
                    self.aliases[rename.new_alias_name] = self.aliases.pop(rename.old_alias_name)
            self._save_aliases()

    def _create_alias(self, wanted: models.CreateAlias) -> None:
        if wanted.collection_name not in self.collections:
            raise no_collection(wanted.collection_name)
        if wanted.alias_name in self.collections:
            raise exists(wanted.alias_name)
        check_name(wanted.alias_name)
        self.aliases[wanted.alias_name] = wanted.collection_name

    def _save_aliases(self) -> None:
        write_json(self._aliases_file, self.aliases)


def check_name(name: str) -> None:
    """Whether a server takes this name.

    Raises:
        ApiError: 422.
    """
    for character in _FORBIDDEN:
        if character in name:
            raise invalid(
                f'collection_name: collection name cannot contain "{character}" char', where="path parameters"
            )
    if not 1 <= len(name) <= MAX_NAME:
        raise invalid(f"collection_name: length must be from 1 to {MAX_NAME}", where="path parameters")
