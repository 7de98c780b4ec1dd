"""The rows of a holdout's files, checked where they enter.

A holdout is an immutable directory: ``manifest.json``, ``queries.jsonl``, ``judgments.jsonl`` and ``catalogue.ref``.
Unknown fields are refused: a misspelt ``pined`` would otherwise silently take a query out of the hard rules.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

REST_OF_CATALOGUE = "*"
"""As ``product_id``: every product of the catalogue without a row of its own for this query (method ``rule`` only)."""

Identifier = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^\S+$")]
Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Instant = Annotated[
    str, Field(max_length=40, pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$")
]


class Record(BaseModel):
    """Base of all rows: immutable, unknown fields refused, no silent conversion of a string into a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Split(StrEnum):
    """Which part of the holdout a query belongs to; no family is in two parts.

    ``traffic`` is a random sample never selected by any model's result; ``preservation`` and ``failures`` were selected
    by one; ``dev`` is for early stopping and tuning and is never used by the gate.
    """

    TRAFFIC = "traffic"
    PRESERVATION = "preservation"
    FAILURES = "failures"
    DEV = "dev"


class QueryClass(StrEnum):
    """What a shopper wrote."""

    CODE = "code"
    SPEC = "spec"
    TYPO = "typo"
    INTENT = "intent"
    BROAD = "broad"


class Method(StrEnum):
    """How a grade came to be."""

    HUMAN = "human"
    LLM = "llm"
    LOG = "log"
    RULE = "rule"


class GoodRule(Record):
    """A query is Good when at least min(``wanted``, R) of its top ``top`` are graded ``grade`` or more.

    R is the number of products so graded, so that a code with one right product can be Good.
    """

    top: Annotated[int, Field(ge=1, le=100)] = 5
    wanted: Annotated[int, Field(ge=1, le=100)] = 3
    grade: Annotated[int, Field(ge=1, le=100)] = 2


class CatalogueRef(Record):
    """``catalogue.ref``: the snapshot of products that the labels were given on."""

    uri: Annotated[str, Field(min_length=1, max_length=1024)]
    sha256: Sha256


class Incumbent(Record):
    """Which revision was serving when the holdout was made: provenance only, the gate computes Good afresh."""

    model_config = ConfigDict(extra="allow", frozen=True)

    revision: Annotated[str, Field(max_length=256)]


class Manifest(Record):
    """``manifest.json``.

    Attributes:
        sha256: digest of each of the other files.
        gains: gain of every grade, as text, from ``"0": 0`` upwards; nDCG is linear in them.
        k: depth of nDCG and of judged@k.
        incumbent: provenance only.
    """

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    version: Annotated[
        str, Field(max_length=64, pattern=r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)([-+][0-9A-Za-z.+-]+)?$")
    ]
    sha256: Annotated[dict[str, Sha256], Field(min_length=1, max_length=16)]
    gains: Annotated[
        dict[str, Annotated[float, Field(ge=0, le=1_000_000, strict=False)]], Field(min_length=2, max_length=101)
    ]
    good: GoodRule = GoodRule()
    k: Annotated[int, Field(ge=1, le=100)] = 10
    licence: Annotated[str, Field(min_length=1, max_length=256)]
    created: Instant
    incumbent: Incumbent | None = None
    description: Annotated[str, Field(max_length=4096)] = ""

    @model_validator(mode="after")
    def _gains_rise_from_zero(self) -> Self:
        grades = sorted(int(grade) if grade.isascii() and grade.isdigit() else -1 for grade in self.gains)
        if grades != list(range(len(grades))):
            raise ValueError(f"gains: seen grades {sorted(self.gains)}, wanted 0, 1, … without a hole")
        values = [self.gains[str(grade)] for grade in grades]
        if values[0] != 0 or values != sorted(values) or values[-1] <= 0:
            raise ValueError(f"gains: seen {values}, wanted 0 for grade 0 and no gain below that of a lower grade")
        if self.good.grade >= len(values):
            raise ValueError(f"good.grade: seen {self.good.grade}, wanted a grade that gains has (0–{len(values) - 1})")
        return self


class QueryRow(Record):
    """One line of ``queries.jsonl``.

    Attributes:
        family: queries of one intent or one target product (translations, plurals, typos of it); they are not
            independent, so the gate counts families.
        weight: share of traffic, any unit; reported, never gated on.
        pinned: a query that may never be lost.
    """

    id: Identifier
    family: Identifier
    text: Annotated[str, Field(min_length=1, max_length=1024)]
    lang: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)]
    groups: Annotated[list[Identifier], Field(max_length=32)] = []
    query_class: Annotated[QueryClass, Field(alias="class", strict=False)]
    weight: Annotated[float, Field(ge=0, le=1e12, strict=False)] = 1.0
    pinned: bool = False
    source: Annotated[str, Field(max_length=256)] = ""
    split: Annotated[Split, Field(strict=False)]

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Rater(Record):
    """One rater's own grade, kept so that noisy labels can be told from missing ones."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    grade: Annotated[int, Field(ge=0, le=100)] | None = None


class JudgmentRow(Record):
    """One line of ``judgments.jsonl``; a rater may be given by its name alone."""

    query_id: Identifier
    product_id: Identifier
    grade: Annotated[int, Field(ge=0, le=100)]
    raters: Annotated[list[Rater | Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=32)] = []
    labelled_at: Instant
    method: Annotated[Method, Field(strict=False)]

    def rater_grades(self) -> tuple[int, ...]:
        """The grades that single raters gave, where they were kept."""
        return tuple(rater.grade for rater in self.raters if isinstance(rater, Rater) and rater.grade is not None)

    @model_validator(mode="after")
    def _rest_is_a_rule(self) -> Self:
        if self.product_id == REST_OF_CATALOGUE and (self.method is not Method.RULE or self.grade != 0):
            raise ValueError(
                f"product_id: seen '*' with method {self.method} and grade {self.grade}, "
                "wanted method rule and grade 0: only a rule can have graded a whole catalogue"
            )
        return self
