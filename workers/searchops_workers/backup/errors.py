"""Why a backup or a restore stops, with the exit code that says whether a second try can mend it."""

from __future__ import annotations

from searchops.api.tasks import EXIT_BAD_BACKUP, EXIT_NOT_OURS, EXIT_RETRY


class BackupError(RuntimeError):
    """It cannot go on now; the same again may.

    Attributes:
        code: exit code of the Job.
    """

    code = EXIT_RETRY


class Refused(BackupError):  # noqa: N818 - named for what is the case
    """The cell answered that it will not.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Incomplete(BackupError):  # noqa: N818 - named for what is the case
    """The snapshots do not hold every shard of the collection."""


class NotOurs(BackupError):  # noqa: N818 - named for what is the case
    """What is there belongs to somebody else: it is neither read into a backup nor overwritten nor dropped."""

    code = EXIT_NOT_OURS


class BadBackup(BackupError):  # noqa: N818 - named for what is the case
    """The backup cannot be used: it is absent, not whole, somebody else's, or its bytes are not those written."""

    code = EXIT_BAD_BACKUP
