"""Everything a verdict is a function of."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from searchops_workers.holdout.bootstrap import RESAMPLES
from searchops_workers.holdout.multiplicity import Wear

if TYPE_CHECKING:
    from searchops.api.v1alpha1.embedding_model import Margins
    from searchops_workers.holdout.format import Holdout
    from searchops_workers.holdout.runs import Run

SEED = 20261124
MAX_RESAMPLES = 1_000_000
NORM_TOLERANCE = 1e-3


class Change(StrEnum):
    """What kind of change is asked about; it decides how much may be lost."""

    REPACKAGE = "Repackage"
    MODEL = "Model"
    FIRST = "First"


@dataclass(frozen=True, slots=True)
class Rules:
    """The margins of a decision, written down before the run.

    Attributes:
        loss_margin: δ, the share of Good families that may be lost.
        ndcg_margin: m, how far nDCG@k may fall.
        must_be_better: gate B passes only with a lower bound above 0 (the first model, against lexical search).
        code_margin: δ of success@1 on codes.
        anchored_margin: δ of what promotions may lose together: that of a new model, however small the change is.
    """

    change: Change
    loss_margin: float
    ndcg_margin: float
    must_be_better: bool = False
    code_margin: float = 0.01
    anchored_margin: float = 0.05

    def __post_init__(self) -> None:
        for name in ("loss_margin", "ndcg_margin", "code_margin", "anchored_margin"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: seen {getattr(self, name)}; wanted a share between 0 and 1, both excluded")

    @classmethod
    def of(cls, change: Change, margins: Margins | None = None) -> Rules:
        """δ 2 % and m 0.01 for Repackage, 5 % and 0.02 for Model, 10 % and "better" for First, or what the spec says.

        Raises:
            ValueError: a margin that is no share between 0 and 1.
        """
        loss = {Change.REPACKAGE: "0.02", Change.MODEL: "0.05", Change.FIRST: "0.10"}
        ndcg = {Change.REPACKAGE: "0.01", Change.MODEL: "0.02", Change.FIRST: "0.02"}
        if margins is not None:
            loss = dict(zip(Change, (margins.repackage_loss, margins.model_loss, margins.first_loss), strict=True))
            ndcg = dict(zip(Change, (margins.repackage_ndcg, margins.model_ndcg, margins.model_ndcg), strict=True))
        return cls(
            change,
            float(loss[change]),
            float(ndcg[change]),
            must_be_better=change is Change.FIRST,
            anchored_margin=max(float(loss[change]), float(loss[Change.MODEL])),
        )


@dataclass(frozen=True, slots=True)
class Anchor:
    """A query that was Good under one of the last promoted revisions, with the best nDCG it had there."""

    query_id: str
    ndcg: float


@dataclass(frozen=True, slots=True)
class VectorReport:
    """What was measured on the vectors of one side: queries and catalogue together."""

    side: str
    vectors: int
    not_finite: int
    dimensions: tuple[int, ...]
    wanted_dimension: int
    smallest_norm: float
    greatest_norm: float

    def problems(self) -> tuple[str, ...]:
        """What is broken, each as one line; empty when nothing is."""
        found = []
        if self.vectors < 1:
            found.append(f"{self.side}: seen no vector; wanted at least one; look at the encoder")
        if self.not_finite:
            found.append(
                f"{self.side}: seen {self.not_finite} of {self.vectors} vectors with NaN or infinity; wanted none"
            )
        if any(dimension != self.wanted_dimension for dimension in self.dimensions):
            found.append(f"{self.side}: seen dimensions {list(self.dimensions)}; wanted {self.wanted_dimension}")
        low, high = self.smallest_norm, self.greatest_norm
        if not (1 - NORM_TOLERANCE <= low <= high <= 1 + NORM_TOLERANCE):
            found.append(f"{self.side}: seen norms from {low:.6g} to {high:.6g}; wanted 1 ± {NORM_TOLERANCE}")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class HashCheck:
    """A digest that both sides of the comparison must share: holdout, labels, catalogue, retrieval profile."""

    name: str
    wanted: str
    seen: str


@dataclass(frozen=True, slots=True)
class GateInput:
    """A question to the gate.

    Attributes:
        wear: how often these families were asked before.
        anchored: queries Good under any of the last five promoted revisions; None where nothing is known yet.
        repeat: the incumbent evaluated again (other batch order, rebuilt index); None where it was not.
        vectors: of the candidate; None offline, and for a lexical side.
        incumbent_vectors: of the incumbent.
        hashes: digests seen and wanted.
        failures: what went wrong while the runs were made (timeouts, servers lost); any makes the verdict Invalid.
    """

    holdout: Holdout
    incumbent: Run
    candidate: Run
    rules: Rules
    seed: int = SEED
    resamples: int = RESAMPLES
    wear: Wear = field(default_factory=Wear)
    anchored: tuple[Anchor, ...] | None = None
    repeat: Run | None = None
    vectors: VectorReport | None = None
    incumbent_vectors: VectorReport | None = None
    hashes: tuple[HashCheck, ...] = ()
    failures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 100 <= self.resamples <= MAX_RESAMPLES:
            raise ValueError(f"resamples: seen {self.resamples}; wanted 100–{MAX_RESAMPLES}")
