"""A kept survey shows what this process has written since, and nothing after a write whose effect is open."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from searchops.adapters.cell_surveys import Effect, Surveys
from searchops.api.observed import CellIdentity, CellRegistration, CellState

CELL = CellRegistration("eu-1", {}, ("http://cell:6333",), None, 100)
IDENTITY = CellIdentity("prod", "eu-1", "cluster")


def state(collections: frozenset[str] = frozenset(), aliases: dict[str, str] | None = None) -> CellState:
    return CellState(CELL, True, "", None, collections, aliases or {})


def kept(surveys: Surveys) -> CellState | None:
    found = surveys.get("eu-1")
    return None if found is None else found.state


def read(surveys: Surveys, seen: CellState) -> CellState:
    reading = surveys.begin("eu-1")
    surveys.end("eu-1", reading)
    return surveys.keep(reading, seen, at=1.0, node=0)


def test_writes_are_laid_over_what_was_read() -> None:
    surveys = Surveys()
    read(surveys, state(frozenset({"old"}), {"a": "old", "b": "old"}))
    for effect in (Effect(made="new"), Effect(alias=("a", "new")), Effect(dropped="old"), Effect(identity=IDENTITY)):
        surveys.wrote("eu-1", effect)
    found = kept(surveys)
    assert found is not None
    assert (found.collections, dict(found.aliases), found.identity) == (frozenset({"new"}), {"a": "new"}, IDENTITY)


def test_a_write_whose_effect_is_open_forgets_what_is_kept_and_what_is_being_read() -> None:
    surveys = Surveys()
    read(surveys, state())
    surveys.doubt("eu-1")
    assert kept(surveys) is None
    reading = surveys.begin("eu-1")
    surveys.doubt("eu-1")
    surveys.end("eu-1", reading)
    assert surveys.keep(reading, state(), at=1.0, node=0) == state()
    assert kept(surveys) is None


def test_a_write_while_a_survey_is_read_is_in_it_and_one_after_its_end_is_laid_over() -> None:
    surveys = Surveys()
    reading = surveys.begin("eu-1")
    surveys.wrote("eu-1", Effect(made="during"))
    surveys.end("eu-1", reading)
    shown = surveys.keep(reading, state(), at=1.0, node=0)
    assert shown.collections == {"during"}
    surveys.wrote("eu-1", Effect(made="after"))
    found = kept(surveys)
    assert found is not None and found.collections == {"during", "after"}


def test_a_silent_cell_is_not_made_to_look_as_if_it_answered() -> None:
    surveys = Surveys()
    silent = CellState(CELL, reachable=False, error="refused")
    read(surveys, silent)
    surveys.wrote("eu-1", Effect(made="x"))
    assert kept(surveys) is silent


NAMES = st.sampled_from(["g1", "g2", "g3"])
ALIASES = st.sampled_from(["a", "b"])
WRITES = st.one_of(
    st.builds(lambda name: Effect(made=name), NAMES),
    st.builds(lambda name: Effect(dropped=name), NAMES),
    st.builds(lambda alias, name: Effect(alias=(alias, name)), ALIASES, NAMES),
    st.builds(lambda alias: Effect(alias=(alias, None)), ALIASES),
)


@given(st.lists(WRITES, max_size=8), st.integers(0, 8))
def test_whenever_it_was_read_the_survey_ends_as_the_server_is(writes: list[Effect], at: int) -> None:
    collections: set[str] = set()
    aliases: dict[str, str] = {}
    surveys = Surveys()
    reading = surveys.begin("eu-1")
    seen = None
    for number, write in enumerate(writes):
        if number == at:
            seen = state(frozenset(collections), dict(aliases))
        if write.made is not None:
            collections.add(write.made)
        if write.dropped is not None:
            collections.discard(write.dropped)
            aliases = {alias: name for alias, name in aliases.items() if name != write.dropped}
        if write.alias is not None:
            alias, target = write.alias
            aliases.pop(alias, None)
            if target is not None:
                aliases[alias] = target
        surveys.wrote("eu-1", write)
    surveys.end("eu-1", reading)
    shown = surveys.keep(reading, seen or state(frozenset(collections), dict(aliases)), at=1.0, node=0)
    assert (set(shown.collections), dict(shown.aliases)) == (collections, aliases)
