"""The gate on real, human labels: 67 rated queries over 9,700 electronics products, where they are at hand.

The data is no part of the project and never will be: it is read where it stands, and a machine without it says so. With
35–38 Good queries no verdict can be required; what is reported are counts, differences and what was judged.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from searchops.api.retrieval import BUILTIN_PROFILES, AnalyserSettings, FieldRoles
from searchops_sandbox.fixtures import ladder
from searchops_sandbox.fixtures.check import LEXICAL
from searchops_sandbox.fixtures.evaluation import PROFILE, Shop, evaluate
from searchops_workers.holdout.decide import decide
from searchops_workers.holdout.format import load, write_holdout
from searchops_workers.holdout.hard_rules import judged_shares
from searchops_workers.holdout.inputs import Change, GateInput, Rules
from searchops_workers.holdout.outcomes import compare
from searchops_workers.holdout.records import CatalogueRef, JudgmentRow, Method, QueryClass, QueryRow, Rater, Split
from searchops_workers.holdout.settling import pairs_to_label
from searchops_workers.retrieval.documents import product_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE: Final = Path(
    os.environ.get("BENCH_ELECTRONICS", Path(__file__).resolve().parents[3] / "shared" / "data" / "electronics")
)
DOCUMENT: Final = "{title}. {brand}"
FIELDS: Final = FieldRoles(code=("model",), title=("title",), body=("attributes",), filter=("brand", "price"))
GAINS: Final = {0: 0.0, 1: 1.0, 2: 3.0, 3: 7.0}
STEPS: Final = ((LEXICAL, "r3", Change.FIRST), ("r1", "r3", Change.MODEL), ("r3", "r4", Change.MODEL))
READ: Final = "2026-11-24T00:00:00Z"


def read_shop(place: Path, scratch: Path) -> Shop:
    """The shop, with its labels as a holdout of the traffic's split in a scratch folder."""
    with gzip.open(place / "products.jsonl.gz", "rt", encoding="utf-8") as lines:
        products = tuple(product_of(json.loads(line)) for line in lines)
    write_holdout(
        scratch / "holdout",
        name="electronics",
        version="1.0.0",
        gains=GAINS,
        licence="see the data's own README",
        created=READ,
        queries=[
            QueryRow(
                id=row["id"],
                family=row["id"],
                text=row["text"],
                lang=row["lang"],
                query_class=QueryClass(row["class"]),
                split=Split.TRAFFIC,
            )
            for row in _rows(place / "queries.jsonl")
        ],
        judgments=[
            JudgmentRow(
                query_id=row["query_id"],
                product_id=row["product_id"],
                grade=row["grade"],
                raters=[Rater(id=f"rater-{place}", grade=grade) for place, grade in enumerate(row["raters"])],
                labelled_at=READ,
                method=Method.HUMAN,
            )
            for row in _rows(place / "judgments.jsonl")
        ],
        catalogue=CatalogueRef(uri="file:products.jsonl.gz", sha256="sha256:" + "0" * 64),
    )
    english = AnalyserSettings(languages=("en",))
    return Shop(products, load(scratch / "holdout"), BUILTIN_PROFILES[PROFILE], DOCUMENT, FIELDS, english)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def measured(place: Path, scratch: Path, cache: Path) -> list[dict[str, Any]]:
    """Counts and differences of each step; the verdict is told and wanted by nobody."""
    shop = read_shop(place, scratch)
    names = sorted({name for step in STEPS for name in step[:2] if name != LEXICAL})
    digests = ladder.write_ladder(cache / "ladder", tuple(names))
    runs = {
        name: evaluate(
            shop,
            name,
            cache / "ladder" / name if name != LEXICAL else None,
            digests.get(name, ""),
            cache / "embeddings",
        )
        for name in (LEXICAL, *names)
    }
    found = []
    for before, after, change in STEPS:
        verdict = decide(GateInput(shop.holdout, runs[before], runs[after], Rules.of(change)))
        gained = [
            one
            for one in compare(shop.holdout, runs[before], runs[after])
            if one.counted and one.candidate.good and not one.incumbent.good
        ]
        judged = judged_shares(compare(shop.holdout, runs[before], runs[after]))
        found.append(
            {
                "incumbent": before,
                "candidate": after,
                "change": change.value,
                "good": verdict.of,
                "lost": verdict.lost,
                "gained": len(gained),
                "ndcgDelta": verdict.ndcg_delta,
                "ndcgInterval": verdict.ndcg_interval,
                "judgedShares": judged,
                "pairsToLabel": len(pairs_to_label(shop.holdout, runs[before], runs[after])),
                "outcome": verdict.outcome.value,
                "reason": verdict.reason.value,
            }
        )
    return found
