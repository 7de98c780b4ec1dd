"""What `searchops explain` says of an object."""

from __future__ import annotations

from searchops.cli.explain import condition, meanings, next_actions, reasons


def _object(*conditions: tuple[str, str, str], generation: int = 2, seen: int = 2) -> dict[str, object]:
    rows = [{"type": kind, "status": status, "reason": "R", "message": message} for kind, status, message in conditions]
    return {"metadata": {"generation": generation}, "status": {"observedGeneration": seen, "conditions": rows}}


def test_what_does_not_hold_is_listed_with_ready_first() -> None:
    found = _object(("Loaded", "False", "wait"), ("Placed", "True", ""), ("Ready", "False", "why"))

    assert reasons(found) == ["Ready=False R: why", "Loaded=False R: wait"]


def test_unknown_is_not_passed_over() -> None:
    assert reasons(_object(("Searchable", "Unknown", "no query yet"))) == ["Searchable=Unknown R: no query yet"]


def test_a_generation_that_was_not_seen_is_said_before_anything_else() -> None:
    assert reasons(_object(("Ready", "True", ""), generation=3))[0] == (
        "the operator has seen generation 2, the object is at 3"
    )


def test_everything_holds() -> None:
    assert reasons(_object(("Ready", "True", ""))) == ["everything holds"]
    assert condition(_object(("Ready", "True", "")), "Ready")["status"] == "True"


def test_what_to_do_is_said_once_for_each_reason() -> None:
    found = _object(("Ready", "False", "x"), ("Provisioned", "False", "x"))
    for one in found["status"]["conditions"]:  # type: ignore[index]
        one["reason"] = "CollectionLost"
    lines = next_actions({**found, "kind": "SearchTenant"})
    assert lines == [f"CollectionLost: {meanings()['SearchTenant']['CollectionLost']}"]
    assert "`searchops restore`" in lines[0]


def test_a_deletion_that_waits_names_the_way_out() -> None:
    found = _object(("Ready", "True", ""))
    found["metadata"]["deletionTimestamp"] = "2026-11-01T00:00:00Z"  # type: ignore[index]
    (line,) = next_actions({**found, "kind": "SearchTenant"})
    assert "searchops.dev/abandon=true" in line
