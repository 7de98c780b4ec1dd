"""The evidence document: everything a verdict rests on, byte-identical for equal inputs.

It holds no time, no host and no path; floats are rounded to nine decimals so that a last bit cannot change the digest.
The document is content-addressed: the model's status carries its URI and digest and a summary of at most 4 KiB.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from searchops.api.v1alpha1.embedding_model_status import EvidenceReference, VerdictStatus
from searchops_workers.digests import bytes_digest
from searchops_workers.holdout.inputs import Anchor
from searchops_workers.holdout.intervals import wilson
from searchops_workers.holdout.outcomes import QueryOutcome, by_family
from searchops_workers.holdout.records import Split
from searchops_workers.holdout.verdicts import Figure, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from searchops_workers.holdout.inputs import GateInput
    from searchops_workers.holdout.outcomes import Side
    from searchops_workers.holdout.verdicts import GateResult, Settlement, Verdict

FORMAT = "searchops.dev/evidence/v1"
SUMMARY_LIMIT = 4096
_MESSAGE_LIMIT = 2000
_DECIMALS = 9

Document = dict[str, Any]


def evidence_document(question: GateInput, verdict: Verdict) -> Document:
    """The evidence as plain data."""
    holdout = question.holdout
    return {
        "format": FORMAT,
        "verdict": {
            "outcome": verdict.outcome.value,
            "reason": verdict.reason.value,
            "message": verdict.message,
            "lost": verdict.lost,
            "of": verdict.of,
            "lossBound": verdict.loss_bound,
            "ndcgDelta": verdict.ndcg_delta,
            "ndcgInterval": list(verdict.ndcg_interval) if verdict.ndcg_interval else None,
        },
        "question": {
            "change": question.rules.change.value,
            "lossMargin": question.rules.loss_margin,
            "ndcgMargin": question.rules.ndcg_margin,
            "codeMargin": question.rules.code_margin,
            "mustBeBetter": question.rules.must_be_better,
            "alpha": verdict.alpha,
            "recentAttempts": question.wear.recent,
            "totalAttempts": question.wear.total,
            "lostAttempts": list(question.wear.lost),
            "seed": question.seed,
            "resamples": question.resamples,
            "anchors": None if question.anchored is None else len(question.anchored),
        },
        "holdout": {
            "name": holdout.manifest.name,
            "version": holdout.manifest.version,
            "digest": holdout.digest,
            "sha256": dict(holdout.manifest.sha256),
            "gains": list(holdout.gains),
            "good": holdout.good.model_dump(),
            "k": holdout.k,
            "catalogue": holdout.catalogue.model_dump(),
        },
        "runs": {
            "incumbent": {"name": question.incumbent.name, "digest": question.incumbent.digest},
            "candidate": {"name": question.candidate.name, "digest": question.candidate.digest},
            "repeat": None if question.repeat is None else {"digest": question.repeat.digest},
        },
        "hashes": [{"name": one.name, "wanted": one.wanted, "seen": one.seen} for one in question.hashes],
        "gates": [_gate(gate) for gate in verdict.gates],
        "settlements": [_settlement(one) for one in verdict.settlements],
        "knownFailures": known_failures(verdict.outcomes),
        "losses": [_changed(one) for one in _by_weight(verdict.outcomes, lost=True)],
        "gains": [_changed(one) for one in _by_weight(verdict.outcomes, lost=False)],
        "queries": [_query(one) for one in sorted(verdict.outcomes, key=lambda one: one.query.id)],
    }


def evidence_bytes(document: Document) -> bytes:
    """Canonical JSON: sorted keys, no blanks, UTF-8, floats at nine decimals, one line end."""
    text = json.dumps(rounded(document), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def rounded(value: Any) -> Any:
    """The document as it reads back from its JSON: floats at nine decimals, lists for tuples."""
    if isinstance(value, float):
        return round(value, _DECIMALS) + 0.0
    if isinstance(value, dict):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def _gate(gate: GateResult) -> Document:
    return {
        "gate": gate.gate,
        "state": gate.state.value,
        "reason": gate.reason.value,
        "message": gate.message,
        "figures": dict(gate.figures),
    }


def _settlement(one: Settlement) -> Document:
    return {
        "gate": one.gate,
        "reason": one.reason.value,
        "text": one.text,
        "families": one.families,
        "pairs": [list(pair) for pair in one.pairs],
    }


def _by_weight(outcomes: Iterable[QueryOutcome], *, lost: bool) -> list[QueryOutcome]:
    chosen = [one for one in outcomes if (one.lost.observed if lost else _won(one))]
    return sorted(chosen, key=lambda one: (-one.query.weight, one.query.id))


def _won(one: QueryOutcome) -> bool:
    return one.counted and one.candidate.good and not one.incumbent.good


def _changed(one: QueryOutcome) -> Document:
    return {
        "query": one.query.id,
        "family": one.query.family,
        "text": one.query.text,
        "lang": one.query.lang,
        "class": one.query.query_class.value,
        "groups": list(one.query.groups),
        "weight": one.query.weight,
        "pinned": one.query.pinned,
        "ndcg": [one.incumbent.ndcg, one.candidate.ndcg],
        "incumbent": _top(one.incumbent),
        "candidate": _top(one.candidate),
    }


def _top(side: Side) -> list[list[Figure]]:
    return [[product, grade] for product, grade in zip(side.top, side.grades, strict=True)]


def _query(one: QueryOutcome) -> Document:
    return {
        "id": one.query.id,
        "family": one.query.family,
        "text": one.query.text,
        "weight": one.query.weight,
        "split": one.query.split.value,
        "right": one.right_products,
        "good": [one.incumbent.good, one.candidate.good],
        "ndcg": [one.incumbent.ndcg, one.candidate.ndcg],
        "delta": [one.delta.worst, one.delta.observed, one.delta.best],
        "lost": [one.lost.worst, one.lost.observed, one.lost.best],
        "unjudged": list(one.unjudged),
        "overlap": one.overlap,
    }


def known_failures(outcomes: Sequence[QueryOutcome]) -> Document:
    """Families of the `failures` split that are Good now, with Wilson's interval.

    They were selected for having failed, and what was selected so gets better by chance alone, so they enter neither
    gate B nor Better.
    """
    failing = fixed = 0
    for members in by_family(one for one in outcomes if one.query.split is Split.FAILURES and one.counted).values():
        if not all(one.incumbent.good for one in members):
            failing += 1
            fixed += all(one.candidate.good for one in members)
    shown = wilson(fixed, failing)
    return {"families": failing, "fixed": fixed, "interval": [shown.lower, shown.upper]}


def anchors_from_evidence(
    documents: Iterable[bytes], holdout_name: str, *, places: Sequence[str] = ()
) -> tuple[Anchor, ...]:
    """What gate A′ holds a candidate to, from the evidence of promoted revisions.

    Args:
        documents: evidence of the last promoted revisions; their *candidate* is what was promoted.
        holdout_name: evidence on another holdout is passed over: its query ids mean something else.
        places: what each document is called in an error; ``anchored[<number>]`` where not given.

    Raises:
        ValueError: a document is no evidence document.
    """
    best: dict[str, float] = {}
    for number, content in enumerate(documents):
        try:
            document = json.loads(content)
            if document["format"] != FORMAT:
                raise ValueError(f"seen format {document['format']!r}; wanted {FORMAT!r}")
            if document["holdout"]["name"] != holdout_name or document["verdict"]["outcome"] == Outcome.INVALID:
                continue
            for row in document["queries"]:
                if row["good"][1]:
                    best[row["id"]] = max(best.get(row["id"], 0.0), float(row["ndcg"][1]))
        except (KeyError, TypeError, IndexError, ValueError) as error:
            place = places[number] if places else f"anchored[{number}]"
            raise ValueError(
                f"{place}: seen no evidence document ({error!r}); wanted the evidence.json of a promoted "
                "revision; restore it, or leave it out"
            ) from error
    return tuple(Anchor(query, ndcg) for query, ndcg in sorted(best.items()))


def verdict_status(
    question: GateInput, verdict: Verdict, *, evidence_uri: str | None = None, content: bytes | None = None
) -> VerdictStatus:
    """The summary for `EmbeddingModel.status.verdict` and a termination message, at most 4 KiB as JSON.

    Args:
        question: what was asked.
        verdict: the answer.
        evidence_uri: where the evidence document was written; None leaves the reference out.
        content: the document's bytes; made anew where not given.
    """
    reference = None
    if evidence_uri is not None:
        digest = bytes_digest(content or evidence_bytes(evidence_document(question, verdict)))
        reference = EvidenceReference(uri=evidence_uri, digest=digest)
    status = VerdictStatus(
        revision=question.candidate.name[:256],
        change=question.rules.change.value,
        outcome=verdict.outcome.value,
        lost=verdict.lost,
        of=verdict.of,
        loss_bound=None if verdict.loss_bound is None else f"{verdict.loss_bound:.4f}",
        ndcg_delta=None if verdict.ndcg_delta is None else f"{verdict.ndcg_delta:+.3f}",
        ndcg_interval=()
        if verdict.ndcg_interval is None
        else tuple(f"{bound:+.3f}" for bound in verdict.ndcg_interval),
        reason=verdict.reason.value,
        message=_cut(verdict.message, _MESSAGE_LIMIT),
        evidence=reference,
    )
    excess = len(summary_bytes(status)) - SUMMARY_LIMIT
    if excess > 0:
        shorter = _cut(verdict.message, max(0, _MESSAGE_LIMIT - excess))
        status = status.model_copy(update={"message": shorter})
    return status


def summary_bytes(status: VerdictStatus) -> bytes:
    """The summary as compact JSON."""
    return json.dumps(status.to_wire(), ensure_ascii=False, separators=(",", ":")).encode()


def _cut(text: str, limit: int) -> str:
    content = text.encode()
    return text if len(content) <= limit else content[: max(0, limit - 3)].decode(errors="ignore") + "…"
