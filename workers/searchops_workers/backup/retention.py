"""Which backups may go: pure, so that its promises can be tested over every list there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from searchops.api.backup import BackupEntry


def surplus(entries: Iterable[BackupEntry], keep: int) -> tuple[str, ...]:
    """Ids of the whole backups that may be removed, oldest first: all scheduled ones but the `keep` newest.

    The newest is never among them, whatever `keep` says, nor is what was kept of a deleted tenant.
    """
    scheduled = sorted((entry for entry in entries if entry.reason == "Scheduled"), key=_age)
    return tuple(entry.id for entry in scheduled[: -max(1, keep)])


def abandoned(ids: Iterable[str], whole: Iterable[BackupEntry], current: str) -> tuple[str, ...]:
    """Ids that nobody goes on with: not whole, older than a whole one that is there, and not the current one."""
    done = {entry.id for entry in whole}
    newest = max(done, default="")
    return tuple(sorted(each for each in ids if each not in done and each != current and each < newest))


def _age(entry: BackupEntry) -> tuple[str, str]:
    return entry.taken_at, entry.id
