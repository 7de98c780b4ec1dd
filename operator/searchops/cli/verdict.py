"""A verdict's evidence in the terminal: what was asked, what each gate says, what was lost, what would settle it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FORMAT = "searchops.dev/evidence/v1"
MOST_ROWS = 20
MOST_BYTES = 64 * 2**20
"""A holdout of 100,000 queries stays below it."""
_TOP = 3


class NoEvidenceError(Exception):
    """There is nothing to show; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a verdict's evidence lies, and what it must hash to; no digest where the status keeps none."""

    revision: str
    outcome: str
    uri: str
    digest: str | None


def referred(name: str, status: Mapping[str, Any], revision: str | None) -> Reference:
    """The evidence of a revision's verdict; of the last verdict where no revision is named.

    Raises:
        NoEvidenceError: the status knows no such verdict, or one without evidence.
    """
    known = _known(status)
    if not known:
        raise NoEvidenceError(
            f"model {name} has no verdict yet (phase {status.get('phase', 'none')}); wait for its gate, or see why it "
            f"is not there: searchops explain model {name}"
        )
    wanted = revision or known[0]["revision"]
    entry = next((item for item in known if item["revision"] == wanted), None)
    if entry is None:
        names = ", ".join(dict.fromkeys(item["revision"] for item in known))
        raise NoEvidenceError(f"model {name} knows no verdict on {wanted}; wanted one of {names}")
    evidence = next((item["evidence"] for item in known if item["revision"] == wanted and item["evidence"]), None)
    if evidence is None:
        said = entry["message"] or "no reason given"
        raise NoEvidenceError(
            f"the verdict {entry['outcome']} on {wanted} has no evidence: {said}; correct what it names, then "
            f"searchops retry {name} <any new word>"
        )
    return Reference(wanted, entry["outcome"], evidence["uri"], evidence.get("digest"))


def _known(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every verdict that a status refers to, the last one first."""
    again = status.get("reevaluation") or {}
    judged_at = max((item["at"] for item in status.get("attempts") or ()), default="")
    both = [again.get("verdict"), status.get("verdict")]
    verdicts = [verdict for verdict in (both if again.get("at", "") >= judged_at else both[::-1]) if verdict]
    verdicts += [
        {**item, "message": item.get("reason")} for item in reversed(status.get("rejected") or ()) if item is not None
    ]
    known = [
        {
            "revision": item.get("revision") or "",
            "outcome": item["outcome"],
            "message": item.get("message") or item.get("reason"),
            "evidence": item.get("evidence"),
        }
        for item in verdicts
    ]
    promoted = [status.get("active"), *reversed(status.get("retiring") or ())]
    known += [
        {"revision": item["revision"], "outcome": "promoted", "message": None, "evidence": {"uri": item["evidence"]}}
        for item in promoted
        if item and item.get("evidence")
    ]
    return known


def read_evidence(reference: Reference, content: bytes | None) -> dict[str, Any]:
    """The document, once it is the one that the verdict was made from.

    Raises:
        NoEvidenceError: it is gone, is another one by now, or is no evidence.
    """
    if content is None:
        raise NoEvidenceError(f"{reference.uri} is not there; wanted the evidence of {reference.revision}: restore it")
    seen = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if reference.digest is not None and seen != reference.digest:
        raise NoEvidenceError(
            f"{reference.uri} was changed after the verdict: seen {seen}, wanted {reference.digest}; restore it from a "
            "backup and do not rely on what it says now"
        )
    try:
        document: dict[str, Any] = json.loads(content)
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}")
        document["verdict"]["outcome"], document["gates"], document["losses"], document["gains"]
    except (ValueError, KeyError, TypeError) as error:
        raise NoEvidenceError(
            f"{reference.uri} is no evidence document ({type(error).__name__}: {error}); wanted format {FORMAT}"
        ) from error
    return document


def shown(reference: Reference, document: Mapping[str, Any]) -> list[str | Table]:
    """What the terminal shows, in this order."""
    verdict, question, holdout = document["verdict"], document["question"], document["holdout"]
    parts: list[str | Table] = [
        f"{escape(reference.revision)}: {escape(str(verdict['outcome']))} ({escape(str(verdict['reason']))})",
        escape(str(verdict["message"])),
        f"holdout {escape(str(holdout['name']))} {escape(str(holdout['version']))}, change "
        f"{escape(str(question['change']))}, level {question['alpha']} after {question['recentAttempts']} attempts",
        _gates(document["gates"]),
    ]
    parts += [_changes(title, document[key]) for title, key in (("lost", "losses"), ("gained", "gains"))]
    parts += [f"to settle {escape(str(one['gate']))}: {escape(str(one['text']))}" for one in document["settlements"]]
    return [*parts, f"evidence: {escape(reference.uri)}"]


def _gates(gates: Iterable[Mapping[str, Any]]) -> Table:
    table = Table("gate", "state", "reason", "what was seen", title="gates")
    for gate in gates:
        table.add_row(*(escape(str(gate[key])) for key in ("gate", "state", "reason", "message")))
    return table


def _changes(title: str, entries: list[Mapping[str, Any]]) -> Table:
    more = len(entries) - MOST_ROWS
    caption = f"{more} more: -o json has them all" if more > 0 else None
    table = Table("query", "lang", "nDCG@10", "before", "now", title=f"{title}: {len(entries)}", caption=caption)
    for entry in entries[:MOST_ROWS]:
        before, now = entry["ndcg"]
        table.add_row(
            escape(str(entry["text"])),
            escape(str(entry["lang"])),
            f"{before:.2f} → {now:.2f}",
            *(escape(", ".join(str(hit[0]) for hit in entry[side][:_TOP])) for side in ("incumbent", "candidate")),
        )
    return table
