"""What the operator saw of an EmbeddingModel: its revisions, verdict, wave, servers and history."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from searchops.api.live_signals import SignalName
from searchops.api.meta import (
    ApiModel,
    Conditions,
    Digest,
    Fraction,
    LabelSelector,
    Message,
    ShortText,
    Timestamp,
)
from searchops.api.v1alpha1.search_tenant_status import CostForecast

ChangeKind = Literal["Repackage", "Model", "First"]
Outcome = Literal["Pass", "Better", "Regressed", "Inconclusive", "Invalid"]
Phase = Literal[
    "Pending",
    "Building",
    "Loading",
    "Verifying",
    "Gating",
    "AwaitingApproval",
    "Rolling",
    "Soaking",
    "Promoted",
    "RolledBack",
    "Paused",
]


class RevisionStatus(ApiModel):
    """One revision of the model: one checkpoint digest with one engine profile."""

    revision: ShortText
    number: Annotated[int, Field(ge=1)]
    digest: Digest
    profile_digest: ShortText | None = None
    space: ShortText | None = None
    space_change: Literal["Same", "Incompatible"] | None = None
    founder: ShortText | None = None
    dimension: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    engine_key: ShortText | None = None
    manifest_digest: ShortText | None = None
    backend: ShortText | None = None
    anchors: Annotated[str, Field(max_length=1024)] | None = None
    probes: Annotated[str, Field(max_length=1024)] | None = None
    evidence: Annotated[str, Field(max_length=1024)] | None = None
    promoted_at: Timestamp | None = None
    retire_after: Timestamp | None = None
    attempt: Annotated[int, Field(ge=1)] = 1


class EvidenceReference(ApiModel):
    """The evidence document of a verdict."""

    uri: Annotated[str, Field(max_length=1024)]
    digest: Digest


class VerdictStatus(ApiModel):
    """The gate's answer, with the numbers it rests on."""

    revision: ShortText | None = None
    change: ChangeKind | None = None
    outcome: Outcome
    lost: Annotated[int, Field(ge=0)] = 0
    of: Annotated[int, Field(ge=0)] = 0
    loss_bound: ShortText | None = None
    ndcg_delta: ShortText | None = None
    ndcg_interval: Annotated[tuple[ShortText, ...], Field(max_length=2)] = ()
    reason: ShortText | None = None
    message: Message | None = None
    evidence: EvidenceReference | None = None


class Surroundings(ApiModel):
    """What an active revision answers with besides itself: where any of it differs, its verdict is of another day.

    Attributes:
        triton: version that every server of the serving pool states.
        retrieval: digest of the profile and of everything that tokens and their weights depend on.
        gate: digest of the holdouts, margins and profile that a verdict is given under.
    """

    triton: ShortText
    retrieval: ShortText
    gate: ShortText


class ReevaluationQuestion(ApiModel):
    """What a re-evaluation asks, kept until it is answered.

    Attributes:
        against: the revision that tenants would go back to, Lexical for the lexical legs, or Itself: the active
            revision's own answers of the day it was judged.
        why: what asked for it.
        at: when it was asked.
        attempt: of the Job; a Job that ends without an answer is followed by another.
    """

    against: ShortText
    why: Literal["Scheduled", "TritonChanged", "RetrievalChanged", "GateChanged", "RetryToken"]
    surroundings: Surroundings
    retry_token: ShortText = ""
    at: Timestamp
    attempt: Annotated[int, Field(ge=1)] = 1


class ReevaluationStatus(ApiModel):
    """The gate, asked again of what is promoted.

    Attributes:
        revision: the active one that this is about.
        at: of the last answer, or when the revision was first seen active.
        surroundings: those of the last answer; absent until every server has been read.
        retry_token: the one that the last answer is for.
        asked: the question under way.
        against: of the last answer.
        verdict: the last answer; absent until there is one.
        unanswered: why the last question has no answer.
    """

    revision: ShortText
    at: Timestamp
    surroundings: Surroundings | None = None
    retry_token: ShortText = ""
    asked: ReevaluationQuestion | None = None
    against: ShortText | None = None
    verdict: VerdictStatus | None = None
    unanswered: Message | None = None


class WaveStatus(ApiModel):
    """The wave that is under way, frozen when it starts.

    Attributes:
        halted: why no further tenant of the wave is started; those that are being rebuilt end their rebuild.
    """

    name: ShortText
    index: Annotated[int, Field(ge=0)]
    started_at: Timestamp
    soak_until: Timestamp | None = None
    fraction: Fraction
    selectors: Annotated[tuple[LabelSelector, ...], Field(max_length=16)] = ()
    halted: Literal["BreakerOpen", "CandidateIll", "Paused", "RollbackTargetIll", "SignalDegraded"] | None = None


class SignalStatus(ApiModel):
    """What a live signal says of a candidate; kept as it was until it says something else.

    Attributes:
        revision: the candidate.
        question: digest of what was asked: the signal's fields but onUnknown.
        retry_token: the one that tenants are counted from; another begins anew.
        after: tenants that switched before this moment are not counted; absent counts all.
        state: Degraded stays until the question or the retry token is another.
        tenants: that are counted.
        interval: of the mean added share of searches.
        why: what the state rests on.
        at: when this was written.
    """

    name: SignalName
    revision: ShortText
    question: ShortText
    retry_token: ShortText = ""
    after: Timestamp | None = None
    state: Literal["Healthy", "Degraded", "Unknown"]
    tenants: Annotated[int, Field(ge=0)] = 0
    interval: Annotated[tuple[ShortText, ...], Field(max_length=2)] = ()
    why: Annotated[str, Field(max_length=512)] = ""
    at: Timestamp


class FleetStatus(ApiModel):
    """Counters over the tenants that name the model.

    Attributes:
        total: all of them.
        bound: of those that are not held: bound to what is being rolled out or active.
        rebuilding: that have a rebuild under way or before them.
        reverted: whose rebuild failed.
        held: paused, pinned to a revision, or held back by their own pinned queries.
    """

    total: Annotated[int, Field(ge=0)] = 0
    bound: Annotated[int, Field(ge=0)] = 0
    rebuilding: Annotated[int, Field(ge=0)] = 0
    reverted: Annotated[int, Field(ge=0)] = 0
    held: Annotated[int, Field(ge=0)] = 0


class ServerTrouble(ApiModel):
    """A server that does not serve a revision as it should.

    Attributes:
        server: its address.
        reason: NoAnswer (the server is silent), Loading, NotLoaded (a load failed or is under way) or WrongVectors.
        message: what was seen.
        since: since when it has been so; a load under way belongs to NotLoaded.
        attempts: loads that were tried since it last had the revision loaded.
        reloads: reloads that were tried since its vectors were last right.
        retry_at: when the next one is due; nothing is tried before, and nothing at all where it is absent.
    """

    server: ShortText
    revision: ShortText
    reason: Literal["NoAnswer", "Loading", "NotLoaded", "WrongVectors"]
    message: Annotated[str, Field(max_length=512)]
    since: Timestamp
    attempts: Annotated[int, Field(ge=0)] = 0
    reloads: Annotated[int, Field(ge=0)] = 0
    retry_at: Timestamp | None = None


class ServersStatus(ApiModel):
    """Servers of the pools and how many hold exactly what they should."""

    total: Annotated[int, Field(ge=0)] = 0
    in_sync: Annotated[int, Field(ge=0)] = 0
    failing: Annotated[tuple[ServerTrouble, ...], Field(max_length=64)] = ()


class RejectedStatus(ApiModel):
    """A (digest, gate) pair that was refused, and is not tried again by itself."""

    revision: ShortText | None = None
    digest: Digest
    gate: ShortText
    outcome: ShortText
    reason: Message | None = None
    retry_token: ShortText = ""
    at: Timestamp
    evidence: EvidenceReference | None = None


class AttemptStatus(ApiModel):
    """A verdict that was reached on some checkpoint: it has worn the families it was asked on.

    Attributes:
        digest: of the checkpoint.
        at: when the verdict was reached.
        evidence: URI of the evidence document of its first holdout.
    """

    digest: Digest
    at: Timestamp
    evidence: Annotated[str, Field(max_length=1024)]


class WaveForecast(ApiModel):
    """One wave as it is foreseen.

    Attributes:
        tenants: that it begins: those that no earlier wave has reached, without held ones.
        documents: that it embeds (estimated): none of tenants whose vectors are there.
        seconds: at most, for its rebuilds; absent where no rate was measured.
        finish_seconds: from the start of the first wave to the end of this one, its own soak not in it.
    """

    name: ShortText
    tenants: Annotated[int, Field(ge=0)]
    documents: Annotated[int, Field(ge=0)]
    seconds: Annotated[int, Field(ge=0)] | None = None
    finish_seconds: Annotated[int, Field(ge=0)] | None = None


class RolloutPlanStatus(ApiModel):
    """What rolling the candidate out would take: foreseen once it is built, and kept as foreseen while waves run.

    A wave's seconds, GPU seconds and megabytes have two digits, rounded up. What was never measured is absent, and its
    basis says why.

    Attributes:
        revision: the candidate.
        space_change: Same: every tenant switches at once. Incompatible: each is embedded first, but for those that have
            this revision's vectors already.
        tenants: that are moved, without held ones.
        documents: that are embedded (estimated).
        waves: in their order.
        seconds: from the start of the first wave to the end of the last.
        seconds_basis: which measurements that rests on, or why it is unknown.
        gpu_seconds: over all workers of all tenants.
        gpu_seconds_basis: which measurements that rests on, or why it is unknown.
        cost: of the GPU seconds.
        cost_basis: the price, or why there is no cost.
        extra_megabytes: of dense vectors on all replicas until the rollback window ends (estimated); lexical vectors
            and payload, of which large tenants get a second copy too, are not in it.
    """

    revision: ShortText
    space_change: Literal["Same", "Incompatible"]
    tenants: Annotated[int, Field(ge=0)]
    documents: Annotated[int, Field(ge=0)]
    waves: Annotated[tuple[WaveForecast, ...], Field(max_length=16)]
    seconds: Annotated[int, Field(ge=0)] | None = None
    seconds_basis: Annotated[str, Field(max_length=512)]
    gpu_seconds: Annotated[int, Field(ge=0)] | None = None
    gpu_seconds_basis: Annotated[str, Field(max_length=512)]
    cost: CostForecast | None = None
    cost_basis: Annotated[str, Field(max_length=512)]
    extra_megabytes: Annotated[int, Field(ge=0)]


class PromotedStatus(ApiModel):
    """A revision that was promoted and not taken back: gate A′ holds later candidates to what was Good under it.

    Attributes:
        revision: that was promoted.
        evidence: URI of the evidence document of its first holdout.
    """

    revision: ShortText
    evidence: Annotated[str, Field(max_length=1024)]


class HistoryEntry(ApiModel):
    """One finished step of the model's life."""

    revision: ShortText
    event: ShortText
    at: Timestamp
    message: ShortText | None = None


class EmbeddingModelStatus(ApiModel):
    """What the operator saw and decided; the rollout restarts from this alone."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    phase: Phase | None = None
    active: RevisionStatus | None = None
    candidate: RevisionStatus | None = None
    retiring: Annotated[tuple[RevisionStatus, ...], Field(max_length=10)] = ()
    verdict: VerdictStatus | None = None
    reevaluation: ReevaluationStatus | None = None
    wave: WaveStatus | None = None
    signals: Annotated[
        tuple[SignalStatus, ...],
        Field(
            max_length=3,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    plan: RolloutPlanStatus | None = None
    tenants: FleetStatus | None = None
    servers: ServersStatus | None = None
    next_number: Annotated[int, Field(ge=1)] | None = None
    rejected: Annotated[tuple[RejectedStatus, ...], Field(max_length=20)] = ()
    history: Annotated[tuple[HistoryEntry, ...], Field(max_length=30)] = ()
    attempts: Annotated[tuple[AttemptStatus, ...], Field(max_length=50)] = ()
    promoted: Annotated[tuple[PromotedStatus, ...], Field(max_length=5)] = ()
    conditions: Conditions = ()
