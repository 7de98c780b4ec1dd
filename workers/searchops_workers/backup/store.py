"""A tenant's backups in the artifact store: streams that are checked before they count, the index, and removal."""

from __future__ import annotations

import contextlib
import hashlib
from typing import IO, TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from searchops.api.backup import (
    BackupEntry,
    BackupIndex,
    BackupManifest,
    BackupProof,
    index_uri,
    is_backup_id,
    manifest_uri,
)
from searchops.api.meta import ApiModel
from searchops.api.stores import next_step, said, without_secrets
from searchops_workers.backup.errors import BackupError, BadBackup
from searchops_workers.engines.stages import BuildError
from searchops_workers.engines.storage import open_uri, read_if_there, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from searchops.api.backup import SnapshotPart

Model = TypeVar("Model", bound=ApiModel)


class TenantBackups:
    """Every file below one tenant's prefix.

    Args:
        prefix: `searchops.api.backup.tenant_prefix`.
        fleet: whose backups they are, with `namespace` and `name`: others' are neither listed nor removed.
    """

    def __init__(self, prefix: str, fleet: str, namespace: str, name: str) -> None:
        self.prefix = prefix.rstrip("/")
        self._who = (fleet, namespace, name)

    def uri(self, backup: str, file: str) -> str:
        """Where a file of a backup is."""
        return manifest_uri(self.prefix, backup).removesuffix("manifest.json") + file

    # -- documents ---------------------------------------------------------------------------------------------

    def manifest(self, backup: str) -> BackupManifest | None:
        """The manifest of ours with this id, or None where there is none.

        Raises:
            BadBackup: it does not parse, or it is another tenant's.
        """
        uri = self.uri(backup, "manifest.json")
        found = self._document(uri, BackupManifest)
        if found is not None and not found.is_of(*self._who):
            raise BadBackup(
                f"{uri} is of tenant {found.fleet}/{found.namespace}/{found.name}, wanted {'/'.join(self._who)}; "
                "it is left alone"
            )
        return found

    def document(self, backup: str, file: str, kind: type[Model]) -> Model | None:
        """Another document of a backup; one that cannot be parsed is as good as none."""
        with contextlib.suppress(BadBackup):
            return self._document(self.uri(backup, file), kind)
        return None

    def write(self, backup: str, file: str, document: ApiModel) -> None:
        """Write a document whole."""
        with _told():
            write_bytes(self.uri(backup, file), document.model_dump_json(by_alias=True, indent=1).encode())

    def index(self) -> BackupIndex:
        """The index as it was written last; empty where there is none of ours."""
        fleet, namespace, name = self._who
        found = None
        with contextlib.suppress(BadBackup):
            found = self._document(index_uri(self.prefix), BackupIndex)
        if found is None or (found.fleet, found.namespace, found.name) != self._who:
            return BackupIndex(fleet=fleet, namespace=namespace, name=name)
        return found

    def rebuild_index(self) -> BackupIndex:
        """Make the index anew from what is there; entries that are known and still there are not read again."""
        known = {entry.id: entry for entry in self.index().backups}
        entries = []
        for backup in self.ids():
            entry = known.get(backup)
            if entry is None:
                manifest = None
                with contextlib.suppress(BadBackup):
                    manifest = self.manifest(backup)
                if manifest is None or not manifest.is_complete:
                    continue
                entry = entry_of(manifest, self.document(backup, "proof.json", BackupProof))
            entries.append(entry)
        return self.write_index(entries)

    def write_index(self, entries: Iterable[BackupEntry]) -> BackupIndex:
        """Write the index, newest first."""
        fleet, namespace, name = self._who
        ordered = tuple(sorted(entries, key=lambda entry: (entry.taken_at, entry.id), reverse=True))
        index = BackupIndex(fleet=fleet, namespace=namespace, name=name, backups=ordered)
        with _told():
            write_bytes(index_uri(self.prefix), index.model_dump_json(by_alias=True, exclude_none=True).encode())
        return index

    def ids(self) -> list[str]:
        """Ids of everything that looks like a backup, whole or not, oldest first."""
        with _told():
            system, path = open_uri(self.prefix)
        with _reaching(self.prefix, "listed"):
            try:
                names = system.ls(path, detail=False)
            except FileNotFoundError:
                return []
        found = {str(name).rstrip("/").rsplit("/", 1)[-1] for name in names}
        return sorted(name for name in found if is_backup_id(name))

    # -- content -----------------------------------------------------------------------------------------------

    def keep(self, backup: str, file: str, pieces: Iterable[bytes], *, size: int, checksum: str | None) -> str:
        """Store a stream; it takes its name only where size and checksum are those that the server said.

        Returns:
            sha256 in hex.

        Raises:
            BackupError: what came is not what was announced; nothing is kept of it.
        """
        uri = self.uri(backup, file)
        digest, seen = hashlib.sha256(), 0
        with _told():
            system, path = open_uri(uri)
        staged = f"{path}.partial"
        with _reaching(uri, "written"):
            system.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            try:
                with system.open(staged, "wb") as sink:
                    for piece in pieces:
                        digest.update(piece)
                        seen += len(piece)
                        sink.write(piece)
                if seen != size or (checksum is not None and digest.hexdigest() != checksum):
                    raise BackupError(
                        f"{file}: {seen} bytes with sha256 {digest.hexdigest()} came, the server announced {size} "
                        f"bytes with {checksum}; nothing is kept, it is tried again"
                    )
                system.mv(staged, path)
            except BaseException:
                with contextlib.suppress(Exception):
                    system.rm_file(staged)
                raise
        return digest.hexdigest()

    def size_of(self, backup: str, file: str) -> int | None:
        """Bytes of a file, or None where it is not there."""
        uri = self.uri(backup, file)
        with _told():
            system, path = open_uri(uri)
        with _reaching(uri, "read"):
            try:
                return int(system.info(path)["size"])
            except FileNotFoundError:
                return None

    @contextlib.contextmanager
    def opened(self, manifest: BackupManifest, part: SnapshotPart) -> Iterator[IO[bytes]]:
        """A part's bytes as a file at its beginning. Who takes them in compares them with the manifest's checksum.

        Raises:
            BadBackup: they are gone, or fewer or more than were written.
        """
        uri = self.uri(manifest.id, part.file)
        size = self.size_of(manifest.id, part.file)
        if size != part.size:
            seen = "is gone" if size is None else f"holds {size} bytes"
            raise BadBackup(f"{uri} {seen}, the manifest says {part.size} bytes: it was changed; take another backup")
        with _told():
            system, path = open_uri(uri)
        with _reaching(uri, "opened"):
            source = system.open(path, "rb")
        with source:
            yield source

    def remove(self, backup: str) -> None:
        """Remove a backup: first it says that it goes, then its files, the manifest last.

        Raises:
            BadBackup: it is somebody else's; nothing is removed then.
        """
        manifest = self.manifest(backup)
        if manifest is not None and manifest.state != "Removing":
            self.write(backup, "manifest.json", manifest.model_copy(update={"state": "Removing"}))
        self.remove_files(backup)

    def remove_files(self, backup: str) -> None:
        """Remove every file of a backup, the manifest last; the caller has read whose it is."""
        folder = self.uri(backup, "").rstrip("/")
        with _told():
            system, path = open_uri(folder)
        with _reaching(folder, "removed"):
            try:
                names = [str(name) for name in system.ls(path, detail=False)]
            except FileNotFoundError:
                return
            last = [name for name in names if name.endswith("/manifest.json")]
            for name in [*(name for name in names if name not in last), *last]:
                system.rm_file(name)
            with contextlib.suppress(OSError, NotImplementedError):
                system.rmdir(path)

    def _document(self, uri: str, kind: type[Model]) -> Model | None:
        with _told():
            data = read_if_there(uri)
        if data is None:
            return None
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BadBackup(f"{uri} cannot be read ({where}: {first['msg']}); it is left alone") from error


def entry_of(manifest: BackupManifest, proof: BackupProof | None) -> BackupEntry:
    """The index's line of a manifest."""
    return BackupEntry(
        id=manifest.id,
        taken_at=manifest.taken_at,
        reason=manifest.reason,
        cell=manifest.cell,
        uid=manifest.uid,
        points=manifest.points_after,
        size=manifest.size,
        proof=proof,
    )


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """The store's own errors as ours."""
    try:
        yield
    except BuildError as error:
        raise BackupError(str(error)) from None


@contextlib.contextmanager
def _reaching(uri: str, done: str) -> Iterator[None]:
    """Whatever a store's client raises; S3, Cloud Storage and HTTP errors share no base but Exception."""
    try:
        yield
    except BackupError:
        raise
    except Exception as error:
        # Only its words go on: the cause holds requests and responses, credentials included.
        message = f"{without_secrets(uri)} cannot be {done}: {said(error)}. {next_step(uri, error)}"
        raise BackupError(message) from None
