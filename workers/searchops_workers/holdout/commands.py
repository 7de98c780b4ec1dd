"""The commands `holdout` and `gate`: verify, power, decide. No server is needed for any of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from searchops_workers.digests import bytes_digest
from searchops_workers.holdout.calibration import calibration_report
from searchops_workers.holdout.decide import decide
from searchops_workers.holdout.evidence import (
    anchors_from_evidence,
    evidence_bytes,
    evidence_document,
    verdict_status,
)
from searchops_workers.holdout.format import HoldoutError, load, verify
from searchops_workers.holdout.hard_rules import incomplete
from searchops_workers.holdout.inputs import SEED, Anchor, Change, GateInput, Rules
from searchops_workers.holdout.multiplicity import Wear
from searchops_workers.holdout.power import power_report, size_of
from searchops_workers.holdout.report.markdown import markdown_report
from searchops_workers.holdout.report.page import html_report
from searchops_workers.holdout.runs import read_run
from searchops_workers.holdout.verdicts import Outcome, Reason

if TYPE_CHECKING:
    from searchops_workers.holdout.runs import Run

EXIT_PROBLEMS = 1
EXIT_CODES = {
    Outcome.PASS: 0,
    Outcome.BETTER: 0,
    Outcome.REGRESSED: 10,
    Outcome.INCONCLUSIVE: 11,
    Outcome.INVALID: 12,
}

holdout_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Check a holdout, and see what it can show."
)
gate_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Decide about a candidate from two result lists."
)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A holdout directory.")]
ChangeName = Literal["repackage", "model", "first"]


@holdout_app.callback()
def _holdout() -> None:
    """Check a holdout, and see what it can show."""


@gate_app.callback()
def _gate() -> None:
    """Decide about a candidate from two result lists."""


@holdout_app.command("verify")
def verify_command(directory: Directory) -> None:
    """Check every file, id, grade and hash. Each problem is one line; exit 1 if there is any."""
    problems = verify(directory)
    for problem in problems:
        typer.echo(str(problem))
    if problems:
        raise typer.Exit(EXIT_PROBLEMS)
    holdout = load(directory)
    counts: dict[str, int] = {}
    for query in holdout.queries:
        counts[query.split.value] = counts.get(query.split.value, 0) + 1
    summary = {
        "name": holdout.manifest.name,
        "version": holdout.manifest.version,
        "digest": holdout.digest,
        "queries": len(holdout.queries),
        "families": len({query.family for query in holdout.queries}),
        "judgments": sum(len(labels.grades) for labels in holdout.labels.values()),
        "splits": dict(sorted(counts.items())),
    }
    typer.echo(json.dumps(summary))


@holdout_app.command("power")
def power_command(
    directory: Directory,
    margin: Annotated[float | None, typer.Option(help="Share of Good families that may be lost.")] = None,
    change: Annotated[ChangeName, typer.Option(help="Kind of change, for its margins.")] = "model",
    incumbent: Annotated[Path | None, typer.Option(help="Run of the incumbent: counts the Good families.")] = None,
    attempts: Annotated[int, typer.Option(min=0, help="Earlier attempts within 30 days.")] = 0,
) -> None:
    """What this holdout can show: the smallest loss it can rule out, the power of the gate, families wanted. JSON."""
    try:
        holdout = load(directory)
        run = _run("--incumbent", incumbent) if incumbent is not None else None
        if run is not None and (wrong := incomplete(holdout, run)) is not None:
            raise InputError(wrong[1])
        rules = Rules.of(Change(change.capitalize()))
        if margin is not None:
            rules = _with_margin(rules, margin)
    except (HoldoutError, ValueError, OSError) as error:
        _refuse(error, as_json=False)
    report = power_report(size_of(holdout, run), rules, alpha=Wear(recent=attempts).alpha)
    head = {"holdout": holdout.manifest.name, "version": holdout.manifest.version, "digest": holdout.digest}
    typer.echo(json.dumps({**head, **report}, indent=2))


@gate_app.command("decide")
def decide_command(
    holdout: Annotated[Path, typer.Option(help="Holdout directory.")],
    incumbent: Annotated[Path, typer.Option(help="TREC run of the incumbent.")],
    candidate: Annotated[Path, typer.Option(help="TREC run of the candidate.")],
    change: Annotated[ChangeName, typer.Option(help="Kind of change, for its margins.")],
    as_json: Annotated[bool, typer.Option("--json", help="The whole evidence document instead of a report.")] = False,
    repeat: Annotated[Path | None, typer.Option(help="The incumbent evaluated again (A/A).")] = None,
    anchored: Annotated[list[Path] | None, typer.Option(help="Evidence of promoted revisions (gate A').")] = None,
    attempts: Annotated[int, typer.Option(min=0, help="Earlier attempts within 30 days.")] = 0,
    total_attempts: Annotated[int, typer.Option(min=0, help="Earlier attempts on any of these families.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = SEED,
    evidence: Annotated[Path | None, typer.Option(help="Directory for evidence.json, .md and .html.")] = None,
) -> None:
    """Gates A to D without any server. Exit 0 Pass or Better, 10 Regressed, 11 Inconclusive, 12 Invalid."""
    try:
        loaded = load(holdout)
        question = GateInput(
            holdout=loaded,
            incumbent=_run("--incumbent", incumbent),
            candidate=_run("--candidate", candidate),
            rules=Rules.of(Change(change.capitalize())),
            seed=seed,
            wear=Wear(attempts, total_attempts),
            anchored=_anchors(anchored, loaded.manifest.name),
            repeat=None if repeat is None else _run("--repeat", repeat),
        )
    except (HoldoutError, ValueError, OSError) as error:
        _refuse(error, as_json=as_json)
    verdict = decide(question)
    document = evidence_document(question, verdict)
    content = evidence_bytes(document)
    if evidence is not None:
        try:
            _keep_evidence(evidence, content, document)
        except OSError as error:
            _refuse(_unreadable("--evidence", evidence, error, "a directory to write to"), as_json=as_json)
    if as_json:
        status = verdict_status(question, verdict).to_wire()
        wire = {**status, "evidenceDigest": bytes_digest(content), "evidence": json.loads(content)}
        typer.echo(json.dumps(wire, ensure_ascii=False))
    else:
        typer.echo(markdown_report(document), nl=False)
    raise typer.Exit(EXIT_CODES[verdict.outcome])


class InputError(ValueError):
    """An argument that cannot be used: which, what was seen, what was wanted, what to do."""


def _unreadable(option: str, path: Path, error: OSError, wanted: str) -> InputError:
    seen = (error.strerror or type(error).__name__).lower()
    return InputError(f"{option} {path}: seen {seen!r}; wanted {wanted}; check the path and its rights")


def _run(option: str, path: Path) -> Run:
    try:
        return read_run(path)
    except OSError as error:
        raise _unreadable(option, path, error, "a TREC run file") from error


def _with_margin(rules: Rules, margin: float) -> Rules:
    if not 0 < margin < 1:
        raise InputError(f"--margin: seen {margin:g}; wanted a share between 0 and 1, as 0.05; correct it")
    return replace(rules, loss_margin=margin)


def _keep_evidence(folder: Path, content: bytes, document: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evidence.json").write_bytes(content)
    (folder / "evidence.md").write_text(markdown_report(document), encoding="utf-8")
    (folder / "evidence.html").write_text(html_report(document), encoding="utf-8")


def _anchors(paths: list[Path] | None, name: str) -> tuple[Anchor, ...] | None:
    if not paths:
        return None
    contents = []
    for path in paths:
        try:
            contents.append(path.read_bytes())
        except OSError as error:
            raise _unreadable("--anchored", path, error, "the evidence.json of a promoted revision") from error
    return anchors_from_evidence(contents, name)


def _refuse(error: Exception, *, as_json: bool) -> NoReturn:
    """A question that cannot be read is Invalid, never a Pass; one line on standard error says why."""
    if as_json:
        answer = {
            "outcome": Outcome.INVALID.value,
            "reason": Reason.UNREADABLE_INPUT.value,
            "message": str(error),
        }
        typer.echo(json.dumps(answer, ensure_ascii=False))
    typer.echo(str(error), err=True)
    raise typer.Exit(EXIT_CODES[Outcome.INVALID])


@gate_app.command("calibrate")
def calibrate_command(
    trials: Annotated[int, typer.Option(min=10, max=100_000, help="Simulated decisions a point.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulation.")] = SEED,
) -> None:
    """How often the whole rule is wrong where the truth is known, as JSON; 200 trials a point take minutes."""
    typer.echo(json.dumps(calibration_report(trials, seed), indent=2))
