"""The index of a cell's survey says what walking the survey would say, whatever comes in whatever order."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from searchops.api.observed import CellRegistration, CellState
from searchops.controllers.tenant_index import Generations, Grants
from searchops.planning.names import alias_name, generation_of
from searchops.runtime.key import Key

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ["a", "b", "c", "d"]
CELLS = ["eu-1", "eu-2"]


def state(cell: str, collections: frozenset[str] = frozenset(), aliases: Mapping[str, str] | None = None) -> CellState:
    return CellState(CellRegistration(cell, {}, (), None, 100), True, "", None, collections, aliases or {})


def alias(name: str) -> str:
    return alias_name("prod", "shop", name)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), st.sampled_from(NAMES), st.sampled_from(CELLS)),
        st.tuples(st.just("forget"), st.sampled_from(NAMES), st.just("")),
        st.tuples(st.just("alias"), st.sampled_from(NAMES), st.sampled_from(CELLS)),
        st.tuples(st.just("unalias"), st.sampled_from(NAMES), st.sampled_from(CELLS)),
        st.tuples(st.just("count"), st.sampled_from(NAMES), st.just("")),
    ),
    max_size=40,
)


@given(steps)
def test_grants_are_counted_as_by_walking_all_of_them(history: list[tuple[str, str, str]]) -> None:
    grants, walked = Grants(), dict[str, str]()
    states = {cell: state(cell) for cell in CELLS}
    for what, name, cell in history:
        key = Key("shop", name)
        match what:
            case "grant":
                grants.add(key, alias(name), cell)
                walked[name] = cell
            case "forget":
                grants.forget(key)
                walked.pop(name, None)
            case "alias":
                states[cell] = state(cell, aliases={**states[cell].aliases, alias(name): f"{alias(name)}@g1"})
            case "unalias":
                left = {one: to for one, to in states[cell].aliases.items() if one != alias(name)}
                states[cell] = state(cell, aliases=left)
            case _:
                walked = {one: at for one, at in walked.items() if alias(one) not in states[at].aliases}
                expected = Counter(at for one, at in walked.items() if one != name)
                found = grants.counted(key, states.values())
                assert {at: number for at, number in found.items() if number} == dict(expected)


collections = st.frozensets(
    st.one_of(
        st.builds(lambda name, number: f"{alias(name)}@g{number}", st.sampled_from(NAMES), st.integers(0, 12)),
        st.sampled_from(
            [alias("a"), f"{alias('a')}@g01", f"{alias('a')}@gate-1", "prod@tokens", f"{alias('b')}@g1@g2"]
        ),
    ),
    max_size=12,
)


@given(st.lists(st.tuples(st.sampled_from(CELLS), collections), max_size=12))
def test_generations_are_found_as_by_looking_at_every_name(surveys: list[tuple[str, frozenset[str]]]) -> None:
    generations = Generations()
    for cell, names in surveys:
        seen = state(cell, names)
        for name in NAMES:
            expected = sorted(one for one in names if generation_of(alias(name), one) is not None)
            assert list(generations.of(seen, alias(name))) == expected
            assert list(generations.of(seen, alias(name))) == expected
