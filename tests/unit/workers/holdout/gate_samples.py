"""Small holdouts and runs made in memory or on disk, for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from searchops_workers.holdout.format import Holdout, load, write_holdout
from searchops_workers.holdout.inputs import Change, GateInput, Rules
from searchops_workers.holdout.records import CatalogueRef, JudgmentRow, QueryClass, QueryRow, Split
from searchops_workers.holdout.runs import Ranking, Run

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

CREATED = "2026-11-01T00:00:00Z"
GAINS = {0: 0.0, 1: 1.0, 2: 5.0, 3: 10.0}
GRADES = (3, 3, 2, 2, 1, 0, 0, 0, 0, 0, 0, 0)
"""Grades of a query's products p0 … p11; R = 4."""


def query(number: int, **changes: Any) -> QueryRow:
    fields: dict[str, Any] = {
        "id": f"q{number}",
        "family": f"f{number}",
        "text": f"query {number}",
        "lang": ("en", "de", "fi")[number % 3],
        "groups": ["units" if number % 2 else "typos"],
        "query_class": list(QueryClass)[number % 5],
        "split": Split.TRAFFIC,
    }
    return QueryRow(**{**fields, **changes})


def judgment(query_id: str, product: str, grade: int, **changes: Any) -> JudgmentRow:
    fields: dict[str, Any] = {"query_id": query_id, "product_id": product, "grade": grade}
    return JudgmentRow(**{**fields, "labelled_at": CREATED, "method": "human", **changes})


def products(number: int) -> tuple[str, ...]:
    return tuple(f"p{number}-{place}" for place in range(len(GRADES)))


def good_list(number: int) -> tuple[str, ...]:
    return products(number)[:10]


def bad_list(number: int) -> tuple[str, ...]:
    """Right products behind wrong ones: not Good, and a drop of nDCG far above 0.1."""
    own = products(number)
    return own[5:11] + own[:4]


@dataclass(frozen=True)
class World:
    """A holdout on disk and in memory, with its perfect run."""

    directory: Path
    holdout: Holdout

    @property
    def perfect(self) -> Run:
        return Run("perfect", {one.id: Ranking(good_list(int(one.id[1:]))) for one in self.holdout.queries})

    def losing(self, lost: Collection[str], name: str = "losing") -> Run:
        rankings = {
            one.id: Ranking(bad_list(int(one.id[1:])) if one.id in lost else good_list(int(one.id[1:])))
            for one in self.holdout.queries
        }
        return Run(name, rankings)

    def ask(self, candidate: Run, change: Change = Change.MODEL, **changes: Any) -> GateInput:
        question = GateInput(self.holdout, self.perfect, candidate, Rules.of(change), resamples=500)
        return replace(question, **changes)


def make_world(
    directory: Path,
    count: int = 330,
    changes: Mapping[int, Mapping[str, Any]] | None = None,
    unjudged: Collection[str] = (),
) -> World:
    """A holdout of `count` one-query families; `unjudged` products get no label."""
    queries = [query(number, **(changes or {}).get(number, {})) for number in range(count)]
    judgments = [
        judgment(f"q{number}", product, grade)
        for number in range(count)
        for product, grade in zip(products(number), GRADES, strict=True)
        if product not in unjudged
    ]
    save(directory, queries, judgments)
    return World(directory, load(directory))


def save(directory: Path, queries: list[QueryRow], judgments: list[JudgmentRow]) -> str:
    return write_holdout(
        directory,
        name="core",
        version="1.2.3",
        gains=GAINS,
        licence="MIT",
        created=CREATED,
        queries=queries,
        judgments=judgments,
        catalogue=CatalogueRef(uri="file:///catalogue.jsonl", sha256="sha256:" + "0" * 64),
    )
