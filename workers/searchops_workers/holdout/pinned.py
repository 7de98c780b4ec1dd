"""A tenant's own pinned queries: a hard rule for that tenant alone.

The set is a small holdout directory whose every query is pinned. Both sides are searched as this very tenant is: by its
analyser, document template, fields and profile. No margin is asked, so a set can only add a reason to stay.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from searchops.api.tasks import EXIT_OK, EXIT_RETRY, PinnedResult, PinnedTask
from searchops.api.v1alpha1.embedding_model import HoldoutReference
from searchops_workers.digests import bytes_digest
from searchops_workers.holdout.evaluate import keep_evidence
from searchops_workers.holdout.evidence import evidence_bytes, evidence_document
from searchops_workers.holdout.hard_rules import check_hashes, check_pinned, check_results, check_vectors, strictest
from searchops_workers.holdout.inputs import Change, GateInput, Rules
from searchops_workers.holdout.material import MaterialError, fetch_material
from searchops_workers.holdout.measuring import Served, measure
from searchops_workers.holdout.outcomes import compare
from searchops_workers.holdout.trying import tried
from searchops_workers.holdout.verdicts import GateResult, Outcome, Reason, State, Verdict

if TYPE_CHECKING:
    from searchops.api.retrieval import Binding
    from searchops_workers.holdout.format import Holdout
    from searchops_workers.holdout.outcomes import QueryOutcome

MOST_BYTES = 64 * 2**20
"""Of a set, and of its catalogue: pinned queries are a few that a merchant lives by, not a benchmark."""
MOST_QUERIES = 1000
NAMED = 10
_NOT_ASKED = "not asked: pinned queries are a hard rule, without a margin"
_OUTCOMES = {
    State.PASS: Outcome.PASS,
    State.REGRESSED: Outcome.REGRESSED,
    State.INCONCLUSIVE: Outcome.INCONCLUSIVE,
    State.INVALID: Outcome.INVALID,
}


def run_pinned(task: PinnedTask) -> int:
    """Try the set and answer; a fault of the infrastructure leaves no answer, so it is tried again."""
    result = tried(_try(task), task.result_uri, "the trial is made")
    if result is None:
        return EXIT_RETRY
    print(f"{result.outcome}: {result.message}", flush=True)
    return EXIT_OK


async def _try(task: PinnedTask) -> PinnedResult:
    with TemporaryDirectory(prefix="searchops-pinned-") as folder:
        work = Path(folder)
        reference = HoldoutReference(name="pinned", uri=task.pinned.uri, digest=task.pinned.digest)
        try:
            material = fetch_material(reference, work, field=task.field, within=task.within, most=MOST_BYTES)
            if len(material.holdout.gated) > MOST_QUERIES:
                seen = len(material.holdout.gated)
                raise MaterialError(f"{task.field}: seen {seen} queries; wanted at most {MOST_QUERIES}")
            _refuse_empty(task.field, material.holdout)
        except MaterialError as error:
            return PinnedResult(revision=_name(task.candidate), outcome="Invalid", message=str(error)[:1024])
        candidate = await measure(_served(task, task.candidate), material, work / "candidate")
        incumbent = await measure(_served(task, task.incumbent), material, work / "incumbent")
    every = tuple(query.model_copy(update={"pinned": True}) for query in material.holdout.queries)
    question = GateInput(
        holdout=replace(material.holdout, queries=every),
        incumbent=incumbent.run,
        candidate=candidate.run,
        rules=Rules.of(Change.MODEL),
        vectors=candidate.vectors,
        incumbent_vectors=incumbent.vectors,
        hashes=material.hashes,
    )
    return _answer(task, question)


def _refuse_empty(field: str, holdout: Holdout) -> None:
    """A query that no product answers can never be lost: a set of such queries would pass whatever comes.

    Raises:
        MaterialError: nothing is asked, or a query has no right product.
    """
    gated = holdout.gated
    if not gated:
        raise MaterialError(f"{field}: seen no query but of split dev; wanted at least one of another split")
    idle = [query.id for query in gated if not holdout.right_products(query.id)]
    if idle:
        named = ", ".join(idle[:NAMED]) + (", …" if len(idle) > NAMED else "")
        raise MaterialError(
            f"{field}: seen {len(idle)} of {len(gated)} queries without a right product ({named}); wanted one product "
            "for each that is graded as manifest.good asks; grade one, or leave the query out"
        )


def decide_pinned(question: GateInput) -> Verdict:
    """Whether every query of the set holds; labels that are missing leave it Inconclusive, which holds back too."""
    outcomes = compare(question.holdout, question.incumbent, question.candidate)
    vectors = check_vectors(question)
    checks = [check_hashes(question), vectors, check_results(question), check_pinned(outcomes)]
    rule = strictest([vectors] if vectors.state is State.REGRESSED else checks)
    others = (GateResult(name, State.NOT_TESTED, _NOT_ASKED) for name in ("A", "A'", "B", "C"))
    return Verdict(
        outcome=_OUTCOMES[rule.state],
        reason=rule.reason if rule.reason is not Reason.NONE else Reason.ALL_GATES_PASS,
        message=rule.message if rule.state is not State.PASS else f"{_counted(outcomes)} pinned queries, none lost",
        alpha=question.wear.alpha,
        lost=len(_lost(outcomes)),
        of=_counted(outcomes),
        loss_bound=None,
        ndcg_delta=None,
        ndcg_interval=None,
        gates=(*others, rule, GateResult("A/A", State.NOT_TESTED, _NOT_ASKED)),
        settlements=() if rule.settlement is None else (rule.settlement,),
        outcomes=outcomes,
    )


def _counted(outcomes: tuple[QueryOutcome, ...]) -> int:
    return sum(outcome.counted for outcome in outcomes)


def _lost(outcomes: tuple[QueryOutcome, ...]) -> list[str]:
    """What is lost, or may be under labels that are missing: what is certain first, then the most traffic."""
    found = [outcome for outcome in outcomes if outcome.lost.worst]
    found.sort(key=lambda outcome: (not outcome.lost.best, -outcome.query.weight, outcome.query.id))
    return [outcome.query.id for outcome in found]


def _answer(task: PinnedTask, question: GateInput) -> PinnedResult:
    verdict = decide_pinned(question)
    document = evidence_document(question, verdict)
    content = evidence_bytes(document)
    keep_evidence(task.evidence_uri, document, content)
    lost = _lost(verdict.outcomes)
    return PinnedResult(
        revision=_name(task.candidate),
        outcome=verdict.outcome.value,
        message=verdict.message[:1024],
        lost=tuple(lost[:NAMED]),
        lost_total=len(lost),
        of=verdict.of,
        evidence_uri=task.evidence_uri,
        evidence_digest=bytes_digest(content),
    )


def _served(task: PinnedTask, binding: Binding) -> Served:
    return Served(_name(binding), binding.encoder, binding.dimension, binding, task.servers)


def _name(binding: Binding) -> str:
    return binding.revision or "lexical"
