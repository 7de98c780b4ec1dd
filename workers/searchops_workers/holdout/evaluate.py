"""The gate Job: incumbent and candidate through the served path on the same holdout, catalogue, fusion and seed.

Both sides are searched in the embedded engine with the same analyser and profile; vectors come from the Triton models
that would serve. The incumbent is evaluated twice (A/A: other batch order, rebuilt index): what does not repeat itself
cannot be compared with anything.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from searchops.api.tasks import EXIT_OK, EXIT_RETRY, Arm, EvaluateResult, EvaluateTask
from searchops.api.v1alpha1.search_tenant import LANGUAGES
from searchops_workers.digests import bytes_digest
from searchops_workers.engines.storage import read_bytes, write_bytes
from searchops_workers.holdout.decide import decide
from searchops_workers.holdout.earlier import wear_before
from searchops_workers.holdout.evidence import (
    anchors_from_evidence,
    evidence_bytes,
    evidence_document,
    verdict_status,
)
from searchops_workers.holdout.evidence_places import kept_on, place_of
from searchops_workers.holdout.inputs import Anchor, Change, GateInput, Rules
from searchops_workers.holdout.material import Material, MaterialError, fetch_material
from searchops_workers.holdout.measuring import Measured, Served, measure
from searchops_workers.holdout.recorded_runs import recorded_run, run_beside, run_bytes
from searchops_workers.holdout.report.markdown import markdown_report
from searchops_workers.holdout.report.page import html_report
from searchops_workers.holdout.runs import Ranking, Run
from searchops_workers.holdout.trying import tried
from searchops_workers.holdout.verdicts import Reason
from searchops_workers.retrieval.commands import offline_binding

if TYPE_CHECKING:
    from searchops.api.v1alpha1.embedding_model import HoldoutReference
    from searchops_workers.holdout.evidence import Document
    from searchops_workers.holdout.format import Holdout

PRECEDENCE = ("Regressed", "Invalid", "Inconclusive", "Pass", "Better")


def run_evaluate(task: EvaluateTask) -> int:
    """Evaluate and answer; a fault of the infrastructure leaves no answer, so it is tried again."""
    result = tried(_evaluate(task), task.result_uri, "the evaluation is tried")
    if result is None:
        return EXIT_RETRY
    print(f"{result.outcome} {result.reason}: {result.message}", flush=True)
    return EXIT_OK


async def _evaluate(task: EvaluateTask) -> EvaluateResult:
    """Every holdout on its own; the worst outcome decides."""
    results = []
    for number, reference in enumerate(task.holdouts):
        results.append(await _on_holdout(task, reference, place_of(task.evidence_uri, reference.name, number)))
    return min(results, key=lambda item: PRECEDENCE.index(item.outcome))


def _invalid(task: EvaluateTask, reason: str, message: str) -> EvaluateResult:
    return EvaluateResult(revision=task.candidate.revision, outcome="Invalid", reason=reason, message=message[:2000])


async def _on_holdout(task: EvaluateTask, reference: HoldoutReference, uri: str) -> EvaluateResult:
    with TemporaryDirectory(prefix="searchops-gate-") as folder:
        work = Path(folder)
        try:
            material = fetch_material(reference, work)
            anchored = _anchors(task, reference.name, material.holdout)
            wear = wear_before(task, reference.name, material.holdout)
            before = _recorded(task.incumbent, reference.name, material.holdout)
        except MaterialError as error:
            return _invalid(task, error.reason, str(error))
        candidate = await _measure(task, task.candidate, material, work / "candidate", reverse=False)
        incumbent, repeat = before, None
        if incumbent is None:
            incumbent = await _measure(task, task.incumbent, material, work / "incumbent", reverse=False)
            repeat = await _measure(task, task.incumbent, material, work / "repeat", reverse=True)
    question = GateInput(
        holdout=material.holdout,
        incumbent=incumbent.run,
        candidate=candidate.run,
        rules=Rules.of(Change(task.change), task.margins),
        seed=task.seed,
        wear=wear,
        anchored=anchored,
        repeat=repeat.run if repeat is not None else None,
        vectors=candidate.vectors,
        incumbent_vectors=incumbent.vectors,
        hashes=material.hashes,
    )
    return _answer(task, question, uri)


def _answer(task: EvaluateTask, question: GateInput, uri: str) -> EvaluateResult:
    verdict = decide(question)
    document = evidence_document(question, verdict)
    content = evidence_bytes(document)
    write_bytes(run_beside(uri), run_bytes(question.candidate))
    keep_evidence(uri, document, content)
    status = verdict_status(question, verdict, evidence_uri=uri, content=content)
    return EvaluateResult(
        revision=task.candidate.revision,
        outcome=status.outcome,
        reason=status.reason or "",
        message=status.message or "",
        lost=status.lost,
        of=status.of,
        loss_bound=status.loss_bound or "",
        ndcg_delta=status.ndcg_delta or "",
        ndcg_interval=status.ndcg_interval,
        evidence_uri=uri,
        evidence_digest=bytes_digest(content),
    )


def _recorded(arm: Arm, name: str, holdout: Holdout) -> Measured | None:
    """The result lists that a revision had when it was judged; None where the side is to be measured.

    Nothing was measured twice that day, so gate A/A has nothing to compare. The lists do not say any more which legs
    answered them: a change of the lexical legs is what may be asked about.
    """
    if arm.recorded is None:
        return None
    run = recorded_run(arm.recorded, name, holdout.digest)
    if run is None:
        version = f"version {holdout.manifest.version} ({holdout.digest[:15]}…)"
        raise MaterialError(
            f"spec.gate.holdouts[{name}]: seen no result lists of {arm.revision} on {version}; wanted those of the day "
            f"it was judged, beside {arm.recorded}: the next candidate's gate compares both on this holdout",
            Reason.NOTHING_RECORDED,
        )
    listed = {query: Ranking(ranking.products) for query, ranking in run.rankings.items()}
    return Measured(Run(f"{arm.revision} as recorded", listed), None)


def keep_evidence(uri: str, document: Document, content: bytes) -> None:
    """The document, and beside it both of its reports."""
    write_bytes(uri, content)
    write_bytes(uri.replace(".json", ".md"), markdown_report(document).encode())
    write_bytes(uri.replace(".json", ".html"), html_report(document).encode())


def _anchors(task: EvaluateTask, name: str, holdout: Holdout) -> tuple[Anchor, ...] | None:
    """What promoted revisions are held to on this holdout, from the evidence that each has on it.

    A revision without any evidence is tried again, and not passed over: gate A' would be empty in silence.
    """
    if not task.anchored:
        return None
    kept = [
        (f"anchored[{number}]", content)
        for number, uri in enumerate(task.anchored)
        for content in kept_on(uri, name) or [read_bytes(uri)]
    ]
    try:
        documents, places = [content for _, content in kept], [place for place, _ in kept]
        return anchors_from_evidence(documents, holdout.manifest.name, places=places)
    except ValueError as error:
        raise MaterialError(str(error)) from error


async def _measure(task: EvaluateTask, arm: Arm, material: Material, folder: Path, *, reverse: bool) -> Measured:
    """One arm, with the profile that is gated and the languages of the holdout."""
    languages = tuple(sorted({query.lang for query in material.holdout.queries} & set(LANGUAGES), key=LANGUAGES.index))
    binding = offline_binding(
        task.profile, dimension=arm.dimension if arm.encoder is not None else None, languages=languages
    )
    served = Served(arm.revision, arm.encoder, arm.dimension, binding, task.servers)
    return await measure(served, material, folder, reverse=reverse)
