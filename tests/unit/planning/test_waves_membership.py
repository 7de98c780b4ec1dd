"""Which revision a tenant follows: waves only ever add tenants."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from searchops.api.meta import LabelSelector
from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus, RevisionStatus, WaveStatus
from searchops.planning.waves import Wanted, in_wave, position, wanted_revision
from unit.planning import tenant_cases as case

ACTIVE, CANDIDATE, OLD = case.revision(2), case.revision(3), case.revision(1)
FRACTIONS = st.integers(0, 100).map(lambda number: f"{number / 100:.2f}")
NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,12}[a-z0-9])?", fullmatch=True)
CANARY = LabelSelector(match_labels={"tier": "canary"})


def wave(fraction: str, *selectors: LabelSelector) -> WaveStatus:
    return WaveStatus(name="w", index=0, started_at=case.STAMP, fraction=fraction, selectors=selectors)


def status(
    active: RevisionStatus | None = ACTIVE,
    candidate: RevisionStatus | None = CANDIDATE,
    started: WaveStatus | None = None,
    number: int | None = 4,
) -> EmbeddingModelStatus:
    return EmbeddingModelStatus(active=active, candidate=candidate, wave=started, retiring=(OLD,), next_number=number)


def wanted(
    found: EmbeddingModelStatus | None, pinned: str | None = None, labels: dict[str, str] | None = None
) -> Wanted:
    return wanted_revision(found, namespace="shop", name="acme", labels=labels or {}, pinned=pinned)


@given(namespace=NAMES, name=NAMES, one=FRACTIONS, other=FRACTIONS)
def test_a_growing_fraction_only_adds_tenants(namespace: str, name: str, one: str, other: str) -> None:
    small, large = sorted((one, other), key=float)
    if in_wave(wave(small), namespace, name, {}):
        assert in_wave(wave(large), namespace, name, {})


@given(namespace=NAMES, name=NAMES)
def test_nobody_is_in_at_zero_and_everybody_at_one(namespace: str, name: str) -> None:
    assert 0 <= position(namespace, name) < 1
    assert not in_wave(wave("0"), namespace, name, {})
    assert in_wave(wave("1"), namespace, name, {})


def test_positions_are_spread_evenly() -> None:
    inside = sum(in_wave(wave("0.10"), "shop", f"tenant-{number}", {}) for number in range(10_000))
    assert 900 < inside < 1100


def test_a_selector_brings_tenants_in_whatever_the_fraction() -> None:
    started = status(started=wave("0", CANARY))
    assert wanted(started, labels={"tier": "canary"}) == Wanted(CANDIDATE, "Candidate")
    assert wanted(started, labels={"tier": "gold"}) == Wanted(ACTIVE, "Active")


def test_a_halted_wave_starts_nobody_and_takes_nobody_back() -> None:
    halted = status(started=wave("1").model_copy(update={"halted": "BreakerOpen"}))
    follower = wanted_revision(halted, namespace="shop", name="acme", labels={}, following=True)
    assert (wanted(halted), follower) == (Wanted(ACTIVE, "Active"), Wanted(CANDIDATE, "Candidate"))
    first = halted.model_copy(update={"active": None})
    assert wanted(first) == Wanted(None, "NothingPromoted")


def test_without_a_wave_the_active_revision_serves() -> None:
    assert wanted(status()) == Wanted(ACTIVE, "Active")
    assert wanted(status(started=wave("1"))) == Wanted(CANDIDATE, "Candidate")


def test_a_candidate_whose_space_is_not_measured_binds_nobody() -> None:
    unmeasured = case.revision(3, "")
    assert unmeasured.space is None
    assert wanted(status(candidate=unmeasured, started=wave("1"))) == Wanted(ACTIVE, "Active")
    assert wanted(status(candidate=unmeasured, started=wave("1")), CANDIDATE.revision) == Wanted(None, "PinnedUnknown")


def test_nothing_promoted_is_told_apart_from_a_model_that_has_not_spoken() -> None:
    assert wanted(status(active=None, candidate=None)) == Wanted(None, "NothingPromoted")
    assert wanted(status(active=None, candidate=None, number=None)) == Wanted(None, "StateUnknown")
    assert wanted(None) == Wanted(None, "ModelMissing")


def test_a_pin_stays_on_what_has_passed_the_gate() -> None:
    assert wanted(status(started=wave("1")), OLD.revision) == Wanted(OLD, "Pinned")
    assert wanted(status(started=wave("1")), ACTIVE.revision) == Wanted(ACTIVE, "Pinned")
    assert wanted(status(), CANDIDATE.revision) == Wanted(None, "PinnedUnknown")
    assert wanted(status(started=wave("0")), CANDIDATE.revision) == Wanted(CANDIDATE, "Pinned")
    assert wanted(status(), "enc-r9-00000009") == Wanted(None, "PinnedUnknown")
