"""What no token may ever be: one without `access`, or one of a cell's key on what holds more than one tenant."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.adapters.tokens import CellKeySigner
from searchops.api.v1alpha1.search_tenant import AccessEntry
from searchops.planning.names import tokens_collection
from searchops.planning.schema import Owner
from searchops.planning.tenant_access import token_claims
from searchops.runtime.errors import Terminal
from unit.planning import tenant_cases as case

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
ENTRIES = st.fixed_dictionaries(
    {"name": NAMES, "role": st.sampled_from(["Search", "Index"]), "secretName": NAMES},
    optional={"direct": st.booleans()},
).map(AccessEntry.model_validate)
OWNERS = st.builds(Owner, NAMES, st.uuids().map(str), NAMES, st.uuids().map(str), NAMES)


@given(
    entry=ENTRIES,
    owner=OWNERS,
    cell=NAMES,
    days=st.integers(1, 365),
    token_id=st.text(max_size=40),
)
def test_every_signed_token_has_access_to_names_of_one_tenant_only(
    entry: AccessEntry, owner: Owner, cell: str, days: int, token_id: str
) -> None:
    claims = token_claims(entry, owner, cell, issued=case.NOW, lifetime=timedelta(days=days), token_id=token_id)
    token = CellKeySigner().sign(case.registration(), claims)
    signed: dict[str, Any] = jwt.decode(token, case.KEY, algorithms=["HS256"], options={"verify_exp": False})
    assert isinstance(signed["access"], list)
    named = [item["collection"] for item in signed["access"]]
    own = [owner.alias, f"{owner.alias}@a", f"{owner.alias}@b"]
    assert named == (own if entry.role == "Index" else own[:1])
    rights = {item["access"] for item in signed["access"]}
    assert rights == ({"prw"} if entry.role == "Index" else {"r"})
    assert tokens_collection(owner.fleet) not in named
    assert ("value_exists" in signed) == bool(token_id)


SHAPES: st.SearchStrategy[Any] = (
    st.none() | st.text(max_size=5) | st.just([]) | st.integers() | st.lists(st.text(max_size=3), max_size=2)
)
BAD_ENTRY: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {}, optional={"collection": st.just("") | st.none(), "access": st.just("m")}
)


@given(access=SHAPES | st.lists(BAD_ENTRY, max_size=2), drop=st.booleans())
def test_claims_without_a_list_of_names_are_never_signed(access: Any, drop: bool) -> None:
    claims = {"subject": "x"} if drop else {"subject": "x", "access": access}
    with pytest.raises(Terminal):
        CellKeySigner().sign(case.registration(), claims)
