"""What the gateway is given: a token for each cell that has shared collections, and keys that outlive a rotation."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from searchops.api.meta import format_time
from searchops.api.observed import CellIdentity
from searchops.api.shared import CellCredential, CellNote, GatewayCredentials, HeldCredentials, Notes, read_notes
from searchops.planning.gateway_credentials import (
    MOUNT_LAG,
    CredentialPlan,
    CredentialSettings,
    claimed,
    plan_credentials,
)
from searchops.planning.tenant_access import key_id
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.observed import CellState

SETTINGS = CredentialSettings("prod", timedelta(days=30), revocable=True)
OLD, NEW = "o" * 48, "n" * 48
SHARED = "prod@shared-0a1b2c3d-0"
LATER = format_time(case.NOW + timedelta(days=10))
CELL = case.make_cell(collections=(SHARED, "prod@tokens"), shared=frozenset({SHARED}))
ACCESS = [{"collection": SHARED, "access": "prw"}, {"collection": "prod@tokens", "access": "r"}]
CLAIMS = {
    "exp": int((case.NOW + timedelta(days=30)).timestamp()),
    "access": ACCESS,
    "subject": "gateway",
    "cell": "eu-1",
}
CREDENTIAL = CellCredential(token="t" * 20, collections=(SHARED,), register_name="prod@tokens")
NOTE = CellNote(key_id=key_id(case.KEY), renew_at=LATER)
SINCE = {key_id(OLD): format_time(case.LONG_AGO)}
HELD = HeldCredentials(
    GatewayCredentials(keys=(OLD,), cells={"eu-1": CREDENTIAL}), Notes(cells={"eu-1": NOTE}, keys_since=SINCE)
)


def plan(held: HeldCredentials | None, cell: CellState = CELL, **changes: Any) -> CredentialPlan:
    signing = {cell.name: changes.pop("signing", cell.registration)}
    return plan_credentials(
        held, {cell.name: cell}, signing, "cluster-1", changes.pop("settings", SETTINGS), case.NOW, NEW
    )


def signed(found: CredentialPlan) -> Mapping[str, Mapping[str, Any]]:
    return found.signed


def test_a_first_key_and_a_token_on_exactly_the_shared_collections_and_the_register() -> None:
    found = plan(None)
    note = CellNote(key_id=key_id(case.KEY), renew_at=format_time(case.NOW + timedelta(days=15)))
    since = {key_id(NEW): format_time(case.NOW)}
    assert found == CredentialPlan(
        (NEW,), Notes(cells={"eu-1": note}, keys_since=since), {}, {"eu-1": CLAIMS}, changed=True
    )
    assert claimed(CLAIMS, "prod") == ((SHARED,), "prod@tokens")


def test_what_is_as_it_should_be_is_left() -> None:
    assert plan(HELD) == CredentialPlan((OLD,), HELD.notes, {"eu-1": CREDENTIAL}, {}, changed=False)


@pytest.mark.parametrize(
    ("cell", "note"),
    [
        (replace(CELL, shared=frozenset({SHARED, "prod@shared-0a1b2c3d-1"})), NOTE),
        (CELL, NOTE.model_copy(update={"key_id": "another"})),
        (CELL, NOTE.model_copy(update={"renew_at": format_time(case.NOW)})),
        (CELL, NOTE.model_copy(update={"renew_at": "soon"})),
    ],
    ids=["another collection", "another key", "half of its life is over", "unreadable"],
)
def test_a_token_is_signed_anew(cell: CellState, note: CellNote) -> None:
    held = replace(HELD, notes=HELD.notes.model_copy(update={"cells": {"eu-1": note}}))
    found = plan(held, cell)
    assert (set(found.signed), found.kept, found.changed) == ({"eu-1"}, {}, True)


@pytest.mark.parametrize(
    ("cell", "signing"),
    [(replace(CELL, reachable=False), CELL.registration), (CELL, None)],
    ids=["silent", "in a rotation"],
)
def test_unknown_takes_nothing_away(cell: CellState, signing: Any) -> None:
    assert plan(HELD, cell, signing=signing) == CredentialPlan(
        (OLD,), HELD.notes, {"eu-1": CREDENTIAL}, {}, changed=False
    )


@pytest.mark.parametrize(
    "cell",
    [
        replace(CELL, shared=frozenset()),
        replace(CELL, identity=CellIdentity("prod", "eu-1", "another cluster")),
        replace(CELL, registration=case.registration(api_key="short")),
    ],
    ids=["nothing shared", "another's", "a weak key"],
)
def test_a_cell_that_has_nothing_for_the_gateway_gets_no_token(cell: CellState) -> None:
    found = plan(HELD, cell)
    assert (found.kept, found.signed, found.changed) == ({}, {}, True)


def test_the_register_is_named_before_it_is_there() -> None:
    assert plan(HELD, replace(CELL, collections=frozenset({SHARED}))).changed is False


def test_without_revocation_the_register_is_not_named() -> None:
    settings = replace(SETTINGS, revocable=False)
    assert plan(None, settings=settings).signed["eu-1"]["access"] == ACCESS[:1]


def rotating(new_for: timedelta, *, signing: str = OLD, rotated: str = "2026-11") -> HeldCredentials:
    """Both keys; the new one has been there, or has signed, for so long."""
    old = format_time(case.NOW - timedelta(days=90))
    young = {key_id(NEW): format_time(case.NOW - new_for), key_id(OLD): old}
    keys = (OLD, NEW) if signing == OLD else (NEW, OLD)
    notes = Notes(cells=HELD.notes.cells, keys_since=young, rotated=rotated)
    return HeldCredentials(GatewayCredentials(keys=keys, cells=HELD.credentials.cells), notes, "2026-11")


def test_a_new_key_is_accepted_before_it_signs_and_an_old_one_for_a_lifetime_after() -> None:
    found = plan(replace(HELD, rotate="2026-11"))
    assert (found.keys, found.notes.rotated, found.changed) == ((OLD, NEW), "2026-11", True)
    assert plan(rotating(MOUNT_LAG - timedelta(seconds=1))).changed is False
    found = plan(rotating(MOUNT_LAG))
    assert (found.keys, found.changed) == ((NEW, OLD), True)
    assert found.notes.keys_since[key_id(NEW)] == format_time(case.NOW), "its lifetime counts from its first token"
    assert plan(rotating(timedelta(days=29), signing=NEW)).changed is False
    found = plan(rotating(timedelta(days=31), signing=NEW))
    assert (found.keys, found.changed) == ((NEW,), True)


def test_a_date_that_is_none_takes_no_key_away() -> None:
    held = rotating(timedelta(days=5), signing=NEW)
    notes = held.notes.model_copy(update={"keys_since": {key_id(NEW): "soon", key_id(OLD): "then"}})
    assert plan(replace(held, notes=notes)).keys == (NEW, OLD)


def test_notes_that_cannot_be_read_cost_new_tokens_and_no_key() -> None:
    assert read_notes("{") == Notes()
    found = plan(replace(HELD, notes=Notes()))
    assert (found.keys, set(found.signed)) == ((OLD,), {"eu-1"})


def test_nothing_secret_is_in_what_is_printed() -> None:
    for shown in (repr(HELD), repr(plan(None)), repr(plan(HELD)), str(HELD.credentials)):
        assert not any(secret in shown for secret in (OLD, NEW, CREDENTIAL.token))
