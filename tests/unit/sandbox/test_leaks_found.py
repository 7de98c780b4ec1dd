"""A secret is found in what is read by people, also where its Secret is gone; what holds none is left alone."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from searchops_sandbox.leaks import TEXT_BYTES, found_in, written_texts
from searchops_sandbox.sandbox import Sandbox
from searchops_sandbox.secrets_seen import SecretRecorder, secrets_in

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "header-that-every-token-of-one-signer-has."
MINE, THEIRS = f"{HEADER}mine", f"{HEADER}theirs"


def _secret(name: str, **data: str) -> dict[str, Any]:
    encoded = {key.replace("_", "."): base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"metadata": {"namespace": "shops", "name": name}, "data": encoded}


def test_the_values_of_a_secret_are_known_by_where_they_are_kept() -> None:
    credentials = json.dumps({"keys": ["first-key"], "cells": {"eu-1": {"token": "cell-token"}}})
    secret = _secret("gateway", token=MINE, url="https://cell", credentials_json=credentials)
    assert secrets_in(secret) == {
        "shops/gateway.token": MINE,
        "gateway key 0": "first-key",
        "gateway token of eu-1": "cell-token",
    }
    assert secrets_in({"metadata": {"namespace": "shops", "name": "empty"}}) == {}


def test_the_recorder_keeps_every_value_once_and_the_earlier_ones_too(tmp_path: Path) -> None:
    recorder = SecretRecorder(Sandbox(tmp_path).api)
    for value in (MINE, MINE, THEIRS, "short"):
        recorder.note(_secret("storefront", token=value))
    assert recorder.seen == (("shops/storefront.token", MINE), ("shops/storefront.token", THEIRS))


def test_each_secret_is_told_of_by_place_and_never_by_value() -> None:
    texts = {"one": f"sent {THEIRS} to it", "two": HEADER, "three": "jwt eyJhbGciOiJIUzI1NiJ9.eyJ9", "four": "nothing"}
    found = found_in(texts, [("a", MINE), ("b", THEIRS), ("b again", THEIRS)])
    assert found == ["b in one", "a token in three"]


def test_texts_of_a_folder_are_read_and_models_are_not(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    report = tmp_path / "deep" / "er" / "report.json"
    report.write_text(MINE)
    (tmp_path / "model.bin").write_bytes(b"\0" + MINE.encode())
    (tmp_path / "long.txt").write_bytes(b"x" * (TEXT_BYTES + 1))
    (tmp_path / "long-enough.txt").write_bytes(b"x" * TEXT_BYTES)
    assert written_texts(tmp_path) == {str(report): MINE, str(tmp_path / "long-enough.txt"): "x" * TEXT_BYTES}
