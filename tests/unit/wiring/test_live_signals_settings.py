"""Where live signals are read from: nothing without an address, and no address that carries a password."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from searchops.settings import OperatorSettings
from searchops.wiring.replica import signals_of

if TYPE_CHECKING:
    from pathlib import Path


def settings(monkeypatch: pytest.MonkeyPatch, **environment: Any) -> OperatorSettings:
    monkeypatch.setenv("SEARCHOPS_ARTIFACTS", "s3://artifacts")
    for name, value in environment.items():
        monkeypatch.setenv(f"SEARCHOPS_PROMETHEUS_{name}", str(value))
    return OperatorSettings()


def test_without_an_address_there_is_nothing_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert signals_of(settings(monkeypatch)) is None
    assert signals_of(settings(monkeypatch, URL="")) is None


async def test_an_address_a_token_and_labels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = settings(
        monkeypatch, URL="https://prom:9090/select/0", TOKEN_FILE=tmp_path / "token", LABELS='{"cluster": "eu"}'
    )
    assert found.prometheus_labels == {"cluster": "eu"}
    signals = signals_of(found)
    assert signals is not None
    await signals.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("URL", "prom:9090"),
        ("URL", "http://user:password@prom:9090"),
        ("URL", "http://prom:9090/?query=up"),
        ("URL", "ftp://prom"),
        ("LABELS", '{"no-label": "x"}'),
        ("LABELS", '{"cluster": "' + "x" * 257 + '"}'),
    ],
)
def test_what_cannot_be_used_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=f"prometheus_{name.lower()}"):
        settings(monkeypatch, **{name: value})
