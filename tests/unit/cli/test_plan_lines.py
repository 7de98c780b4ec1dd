"""What `searchops plan` prints: every figure with its basis, and the unknown as such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from searchops.cli.plan import behind, plan_lines

TENANT: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[1] / "api/full_documents/searchtenants.yaml").read_text(encoding="utf-8")
)


def with_plan(**changes: Any) -> dict[str, Any]:
    plan = {**TENANT["status"]["plan"], **changes}
    return {"metadata": {"generation": 3}, "status": {"plan": {k: v for k, v in plan.items() if v is not None}}}


def test_a_whole_plan_for_people() -> None:
    assert plan_lines(TENANT) == [
        "rebuild    is under way; this is what was foreseen before it started",
        "change     analyser 41c09be2 → 7b95f9c8 (spec.languages)",
        "change     revision shop-encoder-r3-4be1c7aa → shop-encoder-r4-0c77d1e9 "
        "(vector d-9f31c2ab77e0 → d-0c77d1e90000)",
        "strategy   BlueGreen: what differs cannot change in place: another generation is filled while this one serves",
        "fills      prod.merchants-eu.acme-fasteners@g3 d-0c77d1e90000",
        "revision   shop-encoder-r4-0c77d1e9",
        "documents  18231 (estimated)",
        "time       59 s (measured on 3 jobs of shop-encoder-r3-4be1c7aa, another revision of the model, "
        "slowest 640/s)",
        "GPU time   42 s (measured on 3 jobs of shop-encoder-r3-4be1c7aa, another revision of the model)",
        "cost       0.02 EUR (1.10 EUR a GPU-hour of a10)",
        "storage    29 MB of dense vectors more until the rollback window ends (estimated)",
        "room       for one more collection: yes; the cell holds 311 of 1000 collections, memory maps at 34 %, "
        "open files at 21 %",
        "ReindexJob acme-fasteners-7f3a91c2de",
    ]


def test_what_is_not_known_is_said_without_a_number() -> None:
    found = with_plan(
        state="Paused",
        revision=None,
        vector=None,
        seconds=None,
        secondsBasis="unknown: no ReindexJob has finished",
        gpuSeconds=None,
        gpuSecondsBasis="unknown: none has counted",
        cost=None,
        costBasis="no cost: settings.gpuHourPrices is empty",
        room={"needed": False, "fits": True, "collections": 3, "maxCollections": 10},
    )
    lines = plan_lines(found)
    assert lines[0] == "rebuild    waits: spec.paused is true; set it to false to start"
    assert lines[4:] == [
        "fills      prod.merchants-eu.acme-fasteners@g3",
        "revision   none: only the lexical vectors are made",
        "documents  18231 (estimated)",
        "time       unknown: no ReindexJob has finished",
        "GPU time   unknown: none has counted",
        "cost       no cost: settings.gpuHourPrices is empty",
        "storage    29 MB of dense vectors more until the rollback window ends (estimated)",
        "room       none is needed: nothing is made beside what is there (the cell holds 3 of 10 collections)",
    ]


def test_long_times_are_told_in_minutes_and_hours_too() -> None:
    found = {line[:10].strip(): line[11:] for line in plan_lines(with_plan(seconds=1800, gpuSeconds=9000))}
    assert found["time"].startswith("1800 s, about 30 min (measured")
    assert found["GPU time"].startswith("9000 s, about 2.5 h (measured")


def test_no_room_says_so() -> None:
    room = {"needed": True, "fits": False, "collections": 10, "maxCollections": 10}
    lines = plan_lines(with_plan(state="NoRoom", room=room))
    assert lines[0].startswith("rebuild    waits: its cell has no room; raise maxCollections")
    assert lines[-1] == "room       for one more collection: no; the cell holds 10 of 10 collections"


def test_without_a_plan_there_is_nothing_and_a_spec_not_seen_yet_is_said() -> None:
    assert plan_lines({"metadata": {"generation": 1}}) == []
    assert behind({"metadata": {"generation": 3}, "status": {"observedGeneration": 3}}) == ""
    assert behind({"metadata": {"generation": 4}, "status": {"observedGeneration": 3}}) == (
        "the operator has seen generation 3 and the object is at 4: this may not be of its present spec"
    )
