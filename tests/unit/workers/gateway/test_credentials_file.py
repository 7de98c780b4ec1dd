"""The gateway's own credentials: read again when they change, kept when they break, taken away with the file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from searchops_workers.gateway.credentials import CredentialSource
from searchops_workers.gateway.problems import Problem
from unit.workers.gateway.shared_parts import CELL_TOKEN, COLLECTIONS, KEY, OTHER_KEY, REGISTER, credentials

if TYPE_CHECKING:
    from pathlib import Path


def test_the_file_is_read_and_read_again_when_it_changes(tmp_path: Path) -> None:
    path = credentials(tmp_path / "credentials.json")
    source = CredentialSource(path)
    found = source.cell("eu-1")
    assert (source.current().keys, found.token, found.collections, found.register_name) == (
        (KEY,),
        CELL_TOKEN,
        COLLECTIONS,
        REGISTER,
    )
    credentials(path, keys=(OTHER_KEY, KEY), token="another-token")
    assert (source.current().keys, source.cell("eu-1").token) == ((OTHER_KEY, KEY), "another-token")


def test_a_mounted_secret_that_is_swapped_by_its_link_is_read_again(tmp_path: Path) -> None:
    for name, key in (("one", KEY), ("two", OTHER_KEY)):
        (tmp_path / name).mkdir()
        os.utime(credentials(tmp_path / name / "credentials.json", keys=(key[:32],)), ns=(1, 1))
    (tmp_path / "data").symlink_to("one")
    source = CredentialSource(tmp_path / "data" / "credentials.json")
    assert source.current().keys == (KEY[:32],)
    (tmp_path / "data_tmp").symlink_to("two")
    (tmp_path / "data_tmp").rename(tmp_path / "data")
    assert source.current().keys == (OTHER_KEY[:32],)


@pytest.mark.parametrize(
    "broken",
    ["{broken", "", "[]", '{"keys": ["short-SECRET"]}', '{"keys": [], "cells": {"eu-1": {"collections": ["SECRET"]}}}'],
)
def test_a_file_that_breaks_leaves_the_last_good_ones_and_its_values_are_in_no_log(tmp_path: Path, broken: str) -> None:
    path = credentials(tmp_path / "credentials.json")
    source = CredentialSource(path)
    good = source.current()
    assert good.cells
    path.write_text(broken)
    with capture_logs() as logs:
        assert source.current() == good
        assert source.stale
        assert source.current() == good
    assert [entry["log_level"] for entry in logs] == ["error"], "once for each content"
    assert "SECRET" not in str(logs)
    credentials(path, keys=(OTHER_KEY,))
    assert source.current().keys == (OTHER_KEY,)
    assert not source.stale


def test_a_broken_file_that_is_put_back_as_it_was_is_whole_again(tmp_path: Path) -> None:
    path = credentials(tmp_path / "credentials.json")
    os.utime(path, ns=(1, 1))
    source = CredentialSource(path)
    source.current()
    kept = tmp_path / "kept.json"
    path.rename(kept)
    path.write_text("{broken")
    source.current()
    assert source.stale
    kept.rename(path)
    assert source.current().keys == (KEY,)
    assert not source.stale


def test_no_file_is_no_credential_and_one_that_is_removed_takes_them_away(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    source = CredentialSource(path)
    for each in (CredentialSource(None), source):
        assert each.current().keys == ()
        with pytest.raises(Problem, match="SEARCHOPS_GATEWAY_CREDENTIALS") as caught:
            each.cell("eu-1")
        assert (caught.value.status, caught.value.code) == (503, "no-shared-credential")
    credentials(path)
    assert source.cell("eu-1").token == CELL_TOKEN
    with pytest.raises(Problem, match="us-1"):
        source.cell("us-1")
    path.unlink()
    assert source.current().keys == ()
    credentials(path)
    assert source.current().keys == (KEY,)


def test_credentials_are_shown_by_nothing(tmp_path: Path) -> None:
    source = CredentialSource(credentials(tmp_path / "credentials.json"))
    assert KEY not in repr(source.current())
    assert CELL_TOKEN not in repr(source.current())
