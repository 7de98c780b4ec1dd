"""Tokens that must never be signed, and artifacts that are not there, too large, or behind a store that fails."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.adapters.artifacts import ArtifactStore
from searchops.adapters.tokens import CellKeySigner
from searchops.api.observed import AccessSecretState, CellRegistration
from searchops.runtime.errors import Terminal, Transient

if TYPE_CHECKING:
    from pathlib import Path

KEY = "a-key-of-a-cell-with-32-characters!!"
CELL = CellRegistration("eu-1", {}, ("http://q:6333",), None, 100, api_key=KEY)
ACCESS = [{"collection": "prod.shop.a", "access": "r"}]


def test_a_token_carries_its_claims_and_verifies_with_the_cells_key() -> None:
    claims = {"exp": int(time.time()) + 60, "access": ACCESS, "subject": "uid/web", "cell": "eu-1"}
    token = CellKeySigner().sign(CELL, claims)
    assert jwt.decode(token, KEY, algorithms=["HS256"]) == claims
    assert KEY not in token
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, "b" * 36, algorithms=["HS256"])


@pytest.mark.parametrize("access", [None, [], "r", "m", {"collection": "a", "access": "r"}])
def test_a_token_without_scoped_access_is_never_signed(access: Any) -> None:
    claims = {} if access is None else {"access": access}
    with pytest.raises(Terminal, match="InvalidSpec: a token without access claims would have full access"):
        CellKeySigner().sign(CELL, claims)


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=40))
def test_a_short_key_signs_nothing_and_is_not_shown(key: str) -> None:
    cell = CellRegistration("eu-1", {}, (), None, 100, api_key=key)
    if len(key) >= 32:
        assert jwt.decode(CellKeySigner().sign(cell, {"access": ACCESS}), key, algorithms=["HS256"])
        return
    with pytest.raises(Terminal) as caught:
        CellKeySigner().sign(cell, {"access": ACCESS})
    assert str(caught.value) == "CellKeyTooWeak: the apiKey of cell eu-1 is shorter than 32 bytes"


def test_what_holds_a_secret_does_not_print_it() -> None:
    state = AccessSecretState("web", "searchops.dev/access", "u", "d", "", token="the-token-itself")
    assert "the-token-itself" not in repr(state)
    assert KEY not in repr(CELL)


async def test_an_artifact_is_read_by_its_uri_and_an_absent_one_is_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "slice-0.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"kind": "reindex"}))
    store = ArtifactStore()
    assert await store.read(path.as_uri()) == path.read_bytes()
    assert await store.read((tmp_path / "nothing").as_uri()) is None
    assert await store.read((tmp_path / "no-folder" / "nothing").as_uri()) is None


async def test_what_is_too_large_is_not_cut_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "evidence.json"
    path.write_bytes(b"x" * 11)
    assert await ArtifactStore().read(path.as_uri(), limit=11) == b"x" * 11
    with pytest.raises(Transient, match="is larger than the 10 bytes that are read"):
        await ArtifactStore().read(path.as_uri(), limit=10)


async def test_a_store_that_fails_is_unknown_and_named(tmp_path: Path) -> None:
    with pytest.raises(Transient, match=r"file://\S+ could not be read: IsADirectoryError: .+; wanted an answer"):
        await ArtifactStore().read(f"file://{tmp_path}")


async def test_a_store_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answering = threading.Event()
    monkeypatch.setattr("searchops.adapters.artifacts._read", lambda *_: answering.wait(30))
    with pytest.raises(Transient, match=r"s3://a/b could not be read: timed out after 0\.01 s; wanted .+s3://"):
        await ArtifactStore(timeout=0.01).read("s3://a/b")
    answering.set()
