"""The result lists of a judged revision, kept beside its evidence so that it can be held to them later."""

from __future__ import annotations

import gzip
import io
import json

from searchops_workers.engines.storage import read_if_there
from searchops_workers.holdout.evidence_places import places_of
from searchops_workers.holdout.runs import MAX_RUN_BYTES, Ranking, Run, RunFileError, format_run, parse_run

_EXTENSION = ".json"


def run_beside(evidence: str) -> str:
    """The URI of the lists that belong to the evidence at a URI."""
    return f"{evidence.removesuffix(_EXTENSION)}.run.gz"


def run_bytes(run: Run) -> bytes:
    """A run as a compressed TREC file; byte-identical for equal lists.

    Scores are left out: fused ones may differ in their last bit against the order, which a reader of runs refuses.
    """
    listed = {query: Ranking(ranking.products, ranking.legs) for query, ranking in run.rankings.items()}
    return gzip.compress(format_run(Run(run.name, listed)).encode(), mtime=0)


def recorded_run(evidence: str, name: str, holdout: str) -> Run | None:
    """The lists that a revision had when it was judged on this very holdout; None where there are none.

    They are believed only where they are the ones that the evidence beside them was made from.

    Args:
        evidence: URI of the evidence on the first holdout of the Job that judged the revision.
        name: of the holdout in the spec.
        holdout: digest of the holdout; lists on another version of it answer another question.

    Raises:
        BuildError: stage RETRY, where the store does not answer.
    """
    for place in places_of(evidence, name):
        content = read_if_there(place)
        wanted = _judged(content, holdout) if content is not None else None
        kept = read_if_there(run_beside(place)) if wanted is not None else None
        run = _run(kept, run_beside(place)) if kept is not None else None
        if run is not None and run.digest == wanted:
            return run
    return None


def _judged(content: bytes, holdout: str) -> str | None:
    """The digest of the judged side's lists; None where the document is about another holdout, or is none."""
    try:
        document = json.loads(content)
        digest = document["runs"]["candidate"]["digest"]
        return str(digest) if document["holdout"]["digest"] == holdout else None
    except (ValueError, KeyError, TypeError):
        return None


def _run(content: bytes, place: str) -> Run | None:
    """The lists of a file; None where it is damaged, for damaged lists are no lists."""
    try:
        with gzip.open(io.BytesIO(content)) as file:
            text = file.read(MAX_RUN_BYTES + 1)
        return parse_run(text.decode().split("\n"), name=place, where=place) if len(text) <= MAX_RUN_BYTES else None
    except (OSError, EOFError, UnicodeDecodeError, RunFileError):
        return None
