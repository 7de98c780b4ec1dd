"""Which cell a tenant goes to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.meta import LabelSelector
from searchops.planning.placement import NotPlaced, Placed, place, usable
from searchops.planning.tenant import plan_tenant
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from searchops.api.observed import CellState

EVERY = LabelSelector()
EU = LabelSelector(match_labels={"region": "eu"})


def cell(name: str, *, held: int = 0, capacity: int = 10, region: str = "eu", **changes: Any) -> CellState:
    registration = case.registration(name, capacity=capacity, region=region)
    return case.make_cell(collections=tuple(f"c{n}" for n in range(held)), cell=registration, **changes)


def choose(
    cells: tuple[CellState, ...],
    *,
    selector: LabelSelector = EVERY,
    grants: dict[str, int] | None = None,
    strange: frozenset[str] = frozenset(),
    alias: str = case.ALIAS,
) -> Placed | NotPlaced:
    identity_ok = {item.name: item.name not in strange for item in cells}
    return place(selector, cells, alias=alias, grants=grants or {}, identity_ok=identity_ok)


def test_an_alias_of_our_name_is_the_tenants_cell_whatever_the_selector_says() -> None:
    cells = (cell("a"), cell("b", region="us", aliases={case.ALIAS: "x"}))
    assert choose(cells, selector=EU) == Placed("b")


def test_the_emptiest_cell_is_taken_by_share_and_grants_count() -> None:
    cells = (cell("a", held=2, capacity=10), cell("b", held=3, capacity=20))
    assert choose(cells) == Placed("b")
    assert choose(cells, grants={"b": 5}) == Placed("a")


def test_eighty_percent_is_usable_and_grants_fill_it() -> None:
    assert usable(cell("a", capacity=10)) == 8
    assert choose((cell("a", held=7),)) == Placed("a")
    assert choose((cell("a", held=7),), grants={"a": 1}) == NotPlaced(
        "no matching cell has room: a holds 7 + 1 granted of 8 usable collections; add a cell or raise maxCollections "
        "in its Secret"
    )


@pytest.mark.parametrize(
    ("maps", "files", "said"),
    [
        (70, 69, ", memory maps at 70 % (limit 70 %)"),
        (69, 70, ", open files at 70 % (limit 70 %)"),
        (None, 70, ", open files at 70 % (limit 70 %)"),
        (71, None, ", memory maps at 71 % (limit 70 %)"),
        (70, 100, ", memory maps at 70 % (limit 70 %), open files at 100 % (limit 70 %)"),
    ],
)
def test_memory_maps_and_open_files_bind_before_the_collections_do(
    maps: int | None, files: int | None, said: str
) -> None:
    assert choose((cell("a", maps_percent=maps, files_percent=files),)) == NotPlaced(
        f"no matching cell has room: a holds 0 + 0 granted of 8 usable collections{said}; add a cell or raise "
        "maxCollections in its Secret"
    )
    for below in ((69, 69), (None, 69), (69, None), (None, None)):
        roomy = cell("b", held=7, maps_percent=below[0], files_percent=below[1])
        assert choose((cell("a", maps_percent=maps, files_percent=files), roomy)) == Placed("b")


def test_no_cell_matches_is_told_apart_from_no_room() -> None:
    found = choose((cell("a", region="us"),), selector=EU)
    assert found == NotPlaced(
        f"spec.placement.cellSelector {EU.to_wire()} matches none of the 1 cells (a); label a cell's Secret or change "
        "it",
        no_match=True,
    )


def test_a_silent_cell_stops_placement_only_where_it_matches() -> None:
    silent = cell("b", region="us", reachable=False, error="timed out")
    assert choose((cell("a"), silent), selector=EU) == Placed("a")
    found = choose((cell("a"), silent))
    assert isinstance(found, NotPlaced)
    assert found.waiting


@pytest.mark.parametrize("weak", [True, False])
def test_a_strange_or_weak_cell_takes_nobody(weak: bool) -> None:
    bad = case.make_cell(cell=case.registration("a", api_key="short" if weak else case.KEY))
    found = choose((bad,), strange=frozenset() if weak else frozenset({"a"}))
    assert isinstance(found, NotPlaced)
    assert ("its apiKey is shorter than 32 bytes" if weak else "belongs to another fleet or cluster") in found.message


CELLS = st.lists(
    st.builds(
        cell,
        st.sampled_from("abcdef"),
        held=st.integers(0, 12),
        capacity=st.integers(1, 12),
        reachable=st.sampled_from([True, True, True, False]),
    ),
    unique_by=lambda item: item.name,
    max_size=5,
).map(tuple)


@given(cells=CELLS, grants=st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 4)))
def test_no_cell_is_ever_overfilled_and_nothing_is_placed_beside_a_silent_one(
    cells: tuple[CellState, ...], grants: dict[str, int]
) -> None:
    found = choose(cells, grants=grants)
    if isinstance(found, Placed):
        chosen = next(item for item in cells if item.name == found.cell)
        assert len(chosen.collections) + grants.get(chosen.name, 0) < usable(chosen)
        assert all(item.reachable for item in cells)
    assert found == choose(tuple(reversed(cells)), grants=grants)


def test_a_drained_cell_takes_nobody_new_and_keeps_who_is_there() -> None:
    drained = replace(cell("a"), registration=replace(cell("a").registration, draining=True))
    assert choose((drained, cell("b", held=7))) == Placed("b")
    outcome = choose((drained,))
    assert isinstance(outcome, NotPlaced)
    assert "a holds 0 + 0 granted of 8 usable collections, and is drained (searchops.dev/drain on its Secret)" in (
        outcome.message
    )
    there = replace(drained, aliases={case.ALIAS: "x"})
    assert choose((there, cell("b"))) == Placed("a")


@pytest.mark.parametrize(
    ("version", "lacks"),
    [
        ("1.15.4", "collection metadata"),
        ("1.16.0", "update_mode"),
        ("1.17.1-dev", "PUT and DELETE /collections/{collection}/vectors/{vector}"),
        ("1.18.0", ""),
        ("v1.20.0-rc1", ""),
        ("2.0", ""),
        ("", ""),
    ],
)
def test_a_cell_that_is_too_old_takes_nobody_and_the_capability_is_named(version: str, lacks: str) -> None:
    outcome = choose((cell("a", version=version),))
    if not lacks:
        assert outcome == Placed("a")
        return
    assert isinstance(outcome, NotPlaced)
    assert f"its version {version} has no {lacks}" in outcome.message


def test_a_tenant_on_a_cell_that_is_too_old_says_so_and_plans_nothing() -> None:
    old = case.make_cell(version="1.17.0")
    planned = plan_tenant(case.make_tenant(), case.make_facts(cell=old), case.SETTINGS, case.NOW)
    assert planned.actions == ()
    assert planned.status is not None
    (ready,) = [item for item in planned.status.conditions if item.type == "Ready"]
    assert (ready.status, ready.reason) == ("False", "CellTooOld")
    assert "update it to 1.18 or later; nothing is provisioned there" in ready.message
