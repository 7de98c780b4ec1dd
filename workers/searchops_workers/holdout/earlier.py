"""How often the families of a holdout were asked before: read from the evidence of the earlier attempts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from searchops.api.meta import parse_time
from searchops_workers.engines.storage import read_if_there
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
    attempts = [
        Attempt(earlier.digest, _families(earlier, name, holdout.manifest.name, families), parse_time(earlier.at))
        for earlier in task.earlier
    ]
    return wear_of(attempts, families, "", parse_time(task.recent_since))


def _families(earlier: EarlierAttempt, name: str, holdout: str, families: frozenset[str]) -> frozenset[str]:
    """The families that an attempt was asked on; all of them where its evidence is lost: unknown is never unworn."""
    stem = earlier.evidence.removesuffix(".json")
    documents = [
        json.loads(content)
        for uri in (earlier.evidence, f"{stem}-{name}.json")
        if (content := read_if_there(uri)) is not None
    ]
    if not documents:
        return families
    return frozenset(
        row["family"] for found in documents if found["holdout"]["name"] == holdout for row in found["queries"]
    )
