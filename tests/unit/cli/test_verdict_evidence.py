"""`searchops verdict`: the very document that the verdict was made from, and nothing that only looks like it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from searchops.adapters.kube_api import KubeApi
from searchops.cli.main import app
from searchops.cli.verdict import FORMAT, NoEvidenceError, referred

if TYPE_CHECKING:
    from pathlib import Path

NOW, BEFORE, ACTIVE = (f"shop-r{number}-{letter * 8}" for number, letter in ((4, "d"), (3, "c"), (2, "b")))


def change(number: int) -> dict[str, Any]:
    return {
        "text": f"m12 nut [bold]{number}[/bold]",
        "lang": "en",
        "ndcg": [1.0, 0.25],
        "incumbent": [["nut-1", 3], ["nut-2", 2]],
        "candidate": [["shirt-9", 0]],
    }


def document(outcome: str = "Regressed", losses: int = 2) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "verdict": {"outcome": outcome, "reason": "PreservationLoss", "message": "25 of 210 Good families lost"},
        "question": {"change": "Model", "alpha": 0.05, "recentAttempts": 1},
        "holdout": {"name": "shop-core", "version": "1.0.0"},
        "gates": [{"gate": "A", "state": "Regressed", "reason": "PreservationLoss", "message": "too many lost"}],
        "settlements": [{"gate": "B", "text": "label 12 pairs"}],
        "losses": [change(number) for number in range(losses)],
        "gains": [],
    }


class Platform:
    """One model in an API server, and evidence in a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.status: dict[str, Any] = {}

    def keep(self, name: str, content: bytes | None = None) -> dict[str, str]:
        data = json.dumps(document()).encode() if content is None else content
        (self.folder / name).write_bytes(data)
        return {"uri": f"file://{self.folder}/{name}", "digest": f"sha256:{hashlib.sha256(data).hexdigest()}"}

    async def get(self, path: str) -> dict[str, Any] | None:
        return {"metadata": {"name": "shop"}, "status": self.status} if path.endswith("/embeddingmodels/shop") else None

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Platform:
    made = Platform(tmp_path)

    async def connect(kubeconfig: object) -> Platform:
        del kubeconfig
        return made

    monkeypatch.setattr(KubeApi, "connect", connect)
    return made


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["verdict", *arguments], env={"COLUMNS": "200"})
    return done.exit_code, done.output


def test_the_last_verdict_is_shown_with_what_was_lost_and_what_would_settle_it(platform: Platform) -> None:
    platform.status = {"verdict": {"revision": NOW, "outcome": "Regressed", "evidence": platform.keep("e.json")}}
    code, said = run("shop")
    assert code == 0, said
    for part in (
        f"{NOW}: Regressed (PreservationLoss)",
        "25 of 210 Good families lost",
        "holdout shop-core 1.0.0, change Model",
        "too many lost",
        "lost: 2",
        "gained: 0",
        "m12 nut [bold]1[/bold]",
        "1.00 → 0.25",
        "nut-1, nut-2",
        "shirt-9",
        "to settle B: label 12 pairs",
        f"{platform.folder}/e.json",
    ):
        assert part in said


def test_json_is_the_whole_document(platform: Platform) -> None:
    content = json.dumps(document(losses=50)).encode()
    platform.status = {
        "verdict": {"revision": NOW, "outcome": "Regressed", "evidence": platform.keep("e.json", content)}
    }
    code, said = run("shop", "-o", "json")
    assert (code, json.loads(said)) == (0, json.loads(content))
    assert "30 more: -o json has them all" in run("shop")[1]


def test_an_earlier_revision_is_found_where_the_status_keeps_it(platform: Platform) -> None:
    rejected = {"revision": BEFORE, "outcome": "Regressed", "evidence": platform.keep("before.json")}
    active = {"revision": ACTIVE, "evidence": platform.keep("active.json")["uri"]}
    platform.status = {
        "verdict": {"revision": NOW, "outcome": "Invalid", "message": "a hash differs"},
        "rejected": [rejected],
        "active": active,
    }
    for revision, name in ((BEFORE, "before.json"), (ACTIVE, "active.json")):
        code, said = run("shop", "--revision", revision)
        assert (code, name in said) == (0, True), said
    code, said = run("shop")
    assert code == 2
    assert "has no evidence: a hash differs" in said
    assert "searchops retry shop" in said
    code, said = run("shop", "--revision", "shop-r9-99999999")
    assert code == 2
    assert f"wanted one of {NOW}, {BEFORE}, {ACTIVE}" in said


def test_a_model_without_a_verdict_is_not_ready_and_an_absent_one_is_named(platform: Platform) -> None:
    platform.status = {"phase": "Building"}
    code, said = run("shop")
    assert code == 1
    assert "no verdict yet (phase Building)" in said
    code, said = run("nothing")
    assert code == 2
    assert "kubectl get embeddingmodels.searchops.dev" in said
    assert run("shop", "-o", "xml") == (2, "--output 'xml'; wanted table or json\n")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format": "other/v9"}', b'"text"', b"\xff"])
def test_what_is_no_evidence_is_refused_with_what_was_wanted(platform: Platform, content: bytes) -> None:
    platform.status = {"verdict": {"revision": NOW, "outcome": "Pass", "evidence": platform.keep("e.json", content)}}
    code, said = run("shop")
    assert code == 2
    assert f"is no evidence document ({'ValueError' if b'format' in content else ''}" in said
    assert FORMAT in said


def test_evidence_that_was_changed_or_is_gone_is_never_shown(platform: Platform) -> None:
    reference = platform.keep("e.json")
    platform.status = {"verdict": {"revision": NOW, "outcome": "Pass", "evidence": reference}}
    platform.keep("e.json", json.dumps(document("Better")).encode())
    for arguments in (("shop",), ("shop", "-o", "json")):
        code, said = run(*arguments)
        assert code == 2
        assert f"wanted {reference['digest']}" in said
        assert "Better" not in said
    (platform.folder / "e.json").unlink()
    code, said = run("shop")
    assert code == 2
    assert "is not there; wanted the evidence of" in said


def test_a_store_that_does_not_answer_is_no_answer(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    evidence = {"uri": "s3://bucket/e.json", "digest": f"sha256:{'0' * 64}"}
    platform.status = {"verdict": {"revision": NOW, "outcome": "Pass", "evidence": evidence}}
    code, said = run("shop")
    assert code == 3
    assert "Check the endpoint" in said


def test_an_empty_status_has_no_verdict() -> None:
    with pytest.raises(NoEvidenceError, match="phase none"):
        referred("shop", {}, None)


@pytest.mark.parametrize(
    ("asked_again", "shown"), [("2026-11-25T10:00:00Z", "again"), ("2026-11-23T10:00:00Z", "gate")]
)
def test_the_last_answer_is_shown_whether_the_gate_or_a_reevaluation_gave_it(asked_again: str, shown: str) -> None:
    def verdict(name: str) -> dict[str, Any]:
        return {"revision": NOW, "outcome": "Pass", "evidence": {"uri": f"s3://{name}", "digest": f"sha256:{'0' * 64}"}}

    status = {
        "verdict": verdict("gate"),
        "attempts": [{"digest": "d", "at": "2026-11-24T10:00:00Z", "evidence": "s3://gate"}],
        "reevaluation": {"revision": NOW, "at": asked_again, "verdict": verdict("again")},
    }
    assert referred("shop", status, None).uri == f"s3://{shown}"
