"""The gateway's own credentials: keys that tokens are verified with, and what it may do on each cell.

They come from one file that the operator writes (a Secret that is mounted), and are read again when it changes. Nothing
of them is ever logged: what is said of a file that cannot be read names the place in it, never a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from searchops.api.shared import GatewayCredentials
from searchops_workers.gateway.problems import Problem

if TYPE_CHECKING:
    from pathlib import Path

    from searchops.api.shared import CellCredential

log = structlog.get_logger("searchops.gateway")

_NONE = GatewayCredentials()


class CredentialSource:
    """The credentials in force.

    Args:
        path: file of the operator's; None where this gateway serves no shared tenants.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._failed: tuple[int, int, int] | None = None
        self._current = _NONE

    @property
    def stale(self) -> bool:
        """Whether the file as it is cannot be read, and older credentials are used, or none."""
        return self._failed is not None

    def current(self) -> GatewayCredentials:
        """The newest credentials that could be read; none where the file is not there, which takes them away."""
        if self._path is None:
            return self._current
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._failed, self._current = None, None, _NONE
            return self._current
        except OSError as error:
            self._fail((0, 0, 0), type(error).__name__)
            return self._current
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp == self._stamp:
            self._failed = None
        elif stamp != self._failed:
            self._load(self._path, stamp)
        return self._current

    def _load(self, path: Path, stamp: tuple[int, int, int]) -> None:
        try:
            read = GatewayCredentials.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"][:1]) or "the file"
            self._fail(stamp, f"{where}: {first['type']}")
        except OSError as error:
            self._fail(stamp, type(error).__name__)
        else:
            self._stamp, self._failed, self._current = stamp, None, read

    def _fail(self, stamp: tuple[int, int, int], seen: str) -> None:
        if self._failed != stamp:
            log.error("credentials cannot be read; the last good ones are used", seen=seen)
        self._failed = stamp

    def cell(self, name: str) -> CellCredential:
        """What may be done on a cell.

        Raises:
            Problem: 503 where there is nothing for it.
        """
        found = self.current().cells.get(name)
        if found is None:
            raise Problem(
                503,
                f"this gateway has no credential for the shared collections of cell {name!r}; wait until the operator "
                "has written it, or see SEARCHOPS_GATEWAY_CREDENTIALS and the chart's gateway.credentialsSecret",
                code="no-shared-credential",
                retry_after=10,
            )
        return found
