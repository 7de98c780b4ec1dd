r"""Content digests of files and directories, in the one form that specs, manifests and evidence use.

The digest of a directory is sha256 over the sorted lines ``path\0size\0sha256\n`` of its files, with POSIX paths
relative to the directory: it depends on names and contents, never on times, permissions or the order of a listing.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PREFIX = "sha256:"
_CHUNK = 1 << 20


def bytes_digest(content: bytes) -> str:
    """``sha256:<hex>`` of some bytes."""
    return PREFIX + hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """``sha256:<hex>`` of a file's content, read in bounded pieces."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            total.update(piece)
    return PREFIX + total.hexdigest()


def directory_digest(directory: Path) -> str:
    """``sha256:<hex>`` of a directory's files.

    Links to files are read as the file they point to: checkpoints are often kept as links into a store of contents.

    Raises:
        NotADirectoryError: there is no directory at this path.
        ValueError: it holds a link to a directory, a dangling link, a socket or a device, whose content has no digest,
            or a name with a line end, with which two directories could share their lines.
    """
    return lines_digest({path: (file.stat().st_size, file_digest(file)) for path, file in directory_files(directory)})


def lines_digest(files: Mapping[str, tuple[int, str]]) -> str:
    """The digest of a directory from its files' ``path -> (size in bytes, sha256:<hex>)``, without reading them."""
    lines = sorted(
        f"{path}\0{size}\0{digest.removeprefix(PREFIX)}\n".encode() for path, (size, digest) in files.items()
    )
    return bytes_digest(b"".join(lines))


def directory_files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a directory as (POSIX path relative to it, path), in no particular order.

    Raises:
        NotADirectoryError: there is no directory at this path.
        ValueError: an entry has no content that could be digested.
    """
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory}: seen no directory, wanted one; check the path")
    for folder, names, files in os.walk(directory):
        for name in names:
            if (Path(folder) / name).is_symlink():
                raise ValueError(
                    f"{Path(folder) / name}: seen a link to a directory, wanted files; copy what it points to"
                )
        for name in files:
            path = Path(folder) / name
            if not path.is_file():
                raise ValueError(f"{path}: seen something that is no regular file; remove it")
            if "\n" in name:
                raise ValueError(f"{path!s}: seen a line end in a file's name; rename it")
            yield path.relative_to(directory).as_posix(), path
