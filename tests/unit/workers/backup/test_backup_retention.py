"""Retention over every list: the newest whole backup never goes, nor what was kept of a deleted tenant."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from searchops.api.backup import BackupEntry
from searchops_workers.backup.retention import abandoned, surplus

IDS = st.integers(0, 60).map(lambda day: f"2026{1 + day // 28:02}{1 + day % 28:02}T030000Z")
ENTRIES = st.lists(
    st.builds(
        BackupEntry,
        id=IDS,
        taken_at=IDS,
        reason=st.sampled_from(["Scheduled", "Scheduled", "Deletion"]),
        cell=st.just("eu-1"),
        uid=st.sampled_from(["a", "b"]),
        points=st.just(1),
        size=st.just(1),
    ),
    max_size=20,
    unique_by=lambda entry: entry.id,
)


@given(ENTRIES, st.integers(-3, 10))
def test_the_newest_never_goes(entries: list[BackupEntry], keep: int) -> None:
    going = set(surplus(entries, keep))
    scheduled = sorted(
        (entry for entry in entries if entry.reason == "Scheduled"), key=lambda entry: (entry.taken_at, entry.id)
    )
    stays = [entry.id for entry in scheduled if entry.id not in going]
    assert stays == [entry.id for entry in scheduled[-max(1, keep) :]]
    assert all(entry.id not in going for entry in entries if entry.reason == "Deletion")
    assert not scheduled or scheduled[-1].id not in going


@given(ENTRIES, st.lists(IDS, unique=True), IDS)
def test_nothing_whole_or_current_or_newer_is_abandoned(
    entries: list[BackupEntry], others: list[str], current: str
) -> None:
    whole = {entry.id for entry in entries}
    found = abandoned([*whole, *others], entries, current)
    assert not set(found) & (whole | {current})
    assert all(each < max(whole) for each in found)
