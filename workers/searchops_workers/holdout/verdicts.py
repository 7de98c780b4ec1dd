"""What the gate answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops_workers.holdout.outcomes import QueryOutcome

Figure = str | int | float | bool | None | list["Figure"] | dict[str, "Figure"]
"""What JSON can say."""


class Outcome(StrEnum):
    """Only Pass and Better promote."""

    PASS = "Pass"  # noqa: S105 - a verdict
    BETTER = "Better"
    REGRESSED = "Regressed"
    INCONCLUSIVE = "Inconclusive"
    INVALID = "Invalid"


class State(StrEnum):
    """The answer of one gate, check or slice."""

    PASS = "Pass"  # noqa: S105 - a verdict
    BETTER = "Better"
    REGRESSED = "Regressed"
    INCONCLUSIVE = "Inconclusive"
    INVALID = "Invalid"
    NOT_TESTED = "NotTested"


class Reason(StrEnum):
    """Why, in one word that code may branch on."""

    ALL_GATES_PASS = "AllGatesPass"  # noqa: S105 - a verdict
    BETTER_ON_TRAFFIC = "BetterOnTraffic"
    VECTORS_BROKEN = "VectorsBroken"
    PINNED_LOST = "PinnedLost"
    PRESERVATION_LOSS = "PreservationLoss"
    ANCHORED_LOSS = "AnchoredLoss"
    GRADED_LOSS = "GradedLoss"
    SLICE_LOSS = "SliceLoss"
    HOLDOUT_WORN = "HoldoutWorn"
    UNJUDGED_RESULTS = "UnjudgedResults"
    NOISY_LABELS = "NoisyLabels"
    TOO_FEW_QUERIES = "TooFewQueries"
    HASH_MISMATCH = "HashMismatch"
    MISSING_RESULTS = "MissingResults"
    UNKNOWN_QUERIES = "UnknownQueries"
    UNREADABLE_INPUT = "UnreadableInput"
    NOTHING_RECORDED = "NothingRecorded"
    EVALUATION_FAILED = "EvaluationFailed"
    LEXICAL_LISTS_DIFFER = "LexicalListsDiffer"
    NOT_REPRODUCIBLE = "NotReproducible"
    NONE = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What would turn an Inconclusive gate into an answer.

    Attributes:
        families: how many *more* independent families are needed if the share seen so far stays; None where no number
            would do, or where labels are what is missing.
        pairs: (query, product) pairs whose label is missing or disputed.
    """

    gate: str
    reason: Reason
    text: str
    families: int | None = None
    pairs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate's answer with the figures it rests on."""

    gate: str
    state: State
    message: str
    reason: Reason = Reason.NONE
    figures: Mapping[str, Figure] = field(default_factory=dict)
    settlement: Settlement | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a `GateInput`.

    Attributes:
        lost: families lost under the labels as they are, `of` families Good under the incumbent.
        loss_bound: one-sided upper bound of the share lost in the worst case, what gate A compares with δ.
        ndcg_delta: mean difference of nDCG on traffic under the labels as they are; None without traffic.
        ndcg_interval: lower bound of the worst case, upper bound of the best case.
        alpha: level used, after wear.
    """

    outcome: Outcome
    reason: Reason
    message: str
    alpha: float
    lost: int
    of: int
    loss_bound: float | None
    ndcg_delta: float | None
    ndcg_interval: tuple[float, float] | None
    gates: tuple[GateResult, ...]
    settlements: tuple[Settlement, ...]
    outcomes: tuple[QueryOutcome, ...] = ()

    @property
    def promotes(self) -> bool:
        """Whether the candidate may go on."""
        return self.outcome in (Outcome.PASS, Outcome.BETTER)
