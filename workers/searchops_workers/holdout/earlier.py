"""How often the families of a holdout were asked before: read from the evidence of the earlier attempts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from searchops.api.meta import parse_time
from searchops_workers.holdout.evidence_places import kept_on
from searchops_workers.holdout.multiplicity import Attempt, Wear, wear_of

if TYPE_CHECKING:
    from searchops.api.tasks import EarlierAttempt, EvaluateTask
    from searchops_workers.holdout.format import Holdout


def wear_before(task: EvaluateTask, name: str, holdout: Holdout) -> Wear:
    """Wear of the families that the gate may look at, across versions of the holdout.

    Families are counted one by one, so that a new version with families nobody was tried on is fresh.

    Args:
        task: names the earlier attempts.
        name: of the holdout in the spec: evidence on other than an attempt's first holdout carries it in its URI.
        holdout: whose families are about to be used.

    Raises:
        BuildError: stage RETRY, where the store does not answer.
    """
    families = frozenset(query.family for query in holdout.gated)
    asked = {earlier: _families(earlier, name, holdout.manifest.name) for earlier in task.earlier}
    attempts = [
        Attempt(earlier.digest, families if seen is None else seen, parse_time(earlier.at))
        for earlier, seen in asked.items()
    ]
    lost = tuple(sorted(earlier.evidence for earlier, seen in asked.items() if seen is None))
    return replace(wear_of(attempts, families, "", parse_time(task.recent_since)), lost=lost)


def _families(earlier: EarlierAttempt, name: str, holdout: str) -> frozenset[str] | None:
    """The families that an attempt was asked on; None where its evidence is gone or damaged.

    Unknown is never unworn: one half-written document among whole ones leaves unknown what it would have said.
    """
    documents = kept_on(earlier.evidence, name)
    try:
        return frozenset().union(*(_asked(content, holdout) for content in documents)) if documents else None
    except (ValueError, KeyError, TypeError):
        return None


def _asked(content: bytes, holdout: str) -> frozenset[str]:
    """The families in one document; none where it is about another holdout."""
    document = json.loads(content)
    families = [row["family"] for row in document["queries"]]
    if not all(isinstance(family, str) for family in families):
        raise TypeError("a family is a text")
    return frozenset(families) if document["holdout"]["name"] == holdout else frozenset()
