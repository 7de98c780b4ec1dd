"""The operator's settings: one frozen model, read from the environment once, validated at start."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from searchops.api.meta import Quantity
from searchops.planning.backup import BackupSettings
from searchops.planning.rebuild_rates import GpuPrices

_PREFIX = re.compile(r"^(s3|gs|file)://[^:\s]*$")


class OperatorSettings(BaseSettings):
    """Environment variables ``SEARCHOPS_*``.

    Attributes:
        fleet: name of this fleet: first part of every alias; two fleets may share a cell's server, never a collection.
        namespace: the operator's own namespace: cells, pools, PodTemplates and worker Jobs live there.
        artifacts: URI prefix for answers, evidence, ONNX files and cursors; operator and workers reach it alike.
        allow_file_uris: whether ``file://`` sources are allowed (one machine only).
        source_prefixes: allowed prefixes of `EmbeddingModel.spec.source` and holdouts; empty allows all schemes above.
        catalogue_prefixes: allowed prefixes of namespaced kinds' URIs; ``{namespace}`` stands for the object's own.
        binding_settle_seconds: how long a gateway may go on with a cached binding; waited before a backfill starts.
        clock_skew_seconds: by how much clocks may differ; what is dropped at a written moment stays this much longer.
        resync_minutes: how often every model and ReindexJob is looked at.
        tenant_resync_minutes: how often every tenant is looked at whole, its Secrets and a query with its token too.
        drift_minutes: how often each cell is read in bulk; tenants that differ are looked at within this.
        reclaim: Namespace gives data back to a tenant in the very namespace that it was deleted from; Fleet in any of
            that name, for disaster recovery.
        revocable_tokens: tokens name their entry in the cell's register, so that removing it revokes them at once;
            false leaves them valid until they end.
        cell_access_seconds: how often each cell's keys and register of tokens are looked at.
        isolation_canary_minutes: how often each tenant's token is tried on another tenant; 0 never does.
        gateway_url: address that access Secrets give to merchants' clients.
        gateway_secret: the gateway's Secret beside the operator: its keys, and its tokens on shared collections.
        shared_tenants: most tenants of one shared collection.
        max_pinned_trials: worker Jobs that try tenants' own pinned queries at one time, over all tenants.
        writes_per_second: most writes of our own objects to the API server a second, and at once; a new tenant takes
            two. What the API server has room for, it says itself (429, by its priority and fairness), and that is
            heeded; this bounds what a mistake could ask of it.
        backup_pod_template: PodTemplate of backups' and restore proofs' Jobs.
        backup_spread_minutes: tenants of one schedule start this far apart at most, by uid.
        backup_overdue_minutes: how long after its turn a backup may take before BackupFresh says that it is stale.
        backup_deadline_minutes: of one backup's or proof's Job.
        backup_retry_minutes: wait after the first failed Job of a backup; doubled after each, up to six hours.
        backup_prove_hours: how often a tenant's newest backup is restored under a scratch name and counted; 0: never.
        backup_round_seconds: how often it is looked for what is due.
        gpu_hour_prices: what a GPU-hour costs, by the value of the label ``searchops.dev/gpu`` of the workers'
            PodTemplate; the cost in a tenant's ``status.plan`` rests on it, and is absent without it.
        currency: of those prices.
        prometheus_url: base address of what answers PromQL, for the live signals of EmbeddingModels; empty: they are
            Unknown.
        prometheus_token_file: file with a bearer token for it; read anew for each query.
        prometheus_labels: labels that the gateways' series carry there, as JSON, where it knows other fleets' too.
        kubeconfig: used instead of the Pod's ServiceAccount.
    """

    model_config = SettingsConfigDict(env_prefix="SEARCHOPS_", frozen=True, extra="ignore")

    fleet: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)] = "prod"
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)] = "searchops-system"
    identity: Annotated[str, Field(max_length=128)] = ""
    artifacts: str
    allow_file_uris: bool = False
    source_prefixes: tuple[str, ...] = ()
    catalogue_prefixes: tuple[str, ...] = ()
    reclaim: Literal["Namespace", "Fleet"] = "Namespace"
    gateway_url: str = ""
    gateway_secret: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)] = (
        "searchops-gateway"  # noqa: S105 - a Secret's name
    )
    shared_tenants: Annotated[int, Field(ge=1, le=1000)] = 100
    token_lifetime_days: Annotated[int, Field(ge=1, le=365)] = 30
    revocable_tokens: bool = True
    cell_access_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    isolation_canary_minutes: Annotated[float, Field(ge=0, le=10080)] = 360.0
    binding_settle_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0
    clock_skew_seconds: Annotated[float, Field(ge=0, le=86400)] = 600.0
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    probe_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    resync_minutes: Annotated[float, Field(gt=0, le=1440)] = 10.0
    tenant_resync_minutes: Annotated[float, Field(gt=0, le=1440)] = 60.0
    drift_minutes: Annotated[float, Field(gt=0, le=1440)] = 5.0
    cell_sweep_minutes: Annotated[float, Field(gt=0, le=1440)] = 10.0
    tenant_workers: Annotated[int, Field(ge=1, le=500)] = 20
    model_workers: Annotated[int, Field(ge=1, le=50)] = 2
    reindex_workers: Annotated[int, Field(ge=1, le=100)] = 8
    max_reindexes: Annotated[int, Field(ge=1, le=1000)] = 32
    max_pinned_trials: Annotated[int, Field(ge=1, le=1000)] = 8
    writes_per_second: Annotated[float, Field(gt=0, le=10000)] = 300.0
    backup_pod_template: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)] = "cpu"
    backup_spread_minutes: Annotated[float, Field(ge=0, le=1440)] = 240.0
    backup_overdue_minutes: Annotated[float, Field(gt=0, le=10080)] = 360.0
    backup_deadline_minutes: Annotated[float, Field(gt=0, le=1440)] = 120.0
    backup_retry_minutes: Annotated[float, Field(gt=0, le=360)] = 10.0
    backup_prove_hours: Annotated[float, Field(ge=0, le=8760)] = 168.0
    backup_round_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    gpu_hour_prices: dict[str, Quantity] = Field(default_factory=dict)
    currency: Annotated[str, Field(min_length=1, max_length=16)] = "EUR"
    prometheus_url: Annotated[str, Field(pattern=r"^(https?://[^\s@?#]+)?$", max_length=1024)] = ""
    prometheus_token_file: Path | None = None
    prometheus_labels: dict[
        Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$", max_length=128)],
        Annotated[str, Field(max_length=256)],
    ] = Field(default_factory=dict, max_length=16)
    kubeconfig: Path | None = None

    @field_validator("artifacts")
    @classmethod
    def _artifact_prefix(cls, value: str) -> str:
        if not _PREFIX.match(value):
            raise ValueError(f"SEARCHOPS_ARTIFACTS is {value!r}; wanted s3://…, gs://… or file://…")
        return value.rstrip("/")

    @property
    def prices(self) -> GpuPrices:
        """What GPU-hours cost."""
        return GpuPrices(self.currency, self.gpu_hour_prices)

    @property
    def token_lifetime(self) -> timedelta:
        """How long a tenant's token is valid."""
        return timedelta(days=self.token_lifetime_days)

    @property
    def binding_settle(self) -> timedelta:
        """How long a gateway may go on with a cached binding."""
        return timedelta(seconds=self.binding_settle_seconds)

    @property
    def clock_skew(self) -> timedelta:
        """By how much the clocks of two processes may differ."""
        return timedelta(seconds=self.clock_skew_seconds)

    @property
    def backups(self) -> BackupSettings:
        """What backups depend on."""
        return BackupSettings(
            fleet=self.fleet,
            artifacts=self.artifacts,
            pod_template=self.backup_pod_template,
            spread=timedelta(minutes=self.backup_spread_minutes),
            overdue=timedelta(minutes=self.backup_overdue_minutes),
            deadline=timedelta(minutes=self.backup_deadline_minutes),
            prove_every=timedelta(hours=self.backup_prove_hours),
            retry_first=timedelta(minutes=self.backup_retry_minutes),
        )

    def source_allowed(self, uri: str) -> bool:
        """Whether a cluster-scoped kind may read this URI."""
        if uri.startswith("file://") and not self.allow_file_uris:
            return False
        return not self.source_prefixes or any(uri.startswith(prefix) for prefix in self.source_prefixes)

    def catalogue_allowed(self, uri: str, namespace: str) -> bool:
        """Whether a namespaced kind of this namespace may read this URI."""
        if uri.startswith("file://") and not self.allow_file_uris:
            return False
        return uri.startswith(self.prefixes_of(namespace))

    def prefixes_of(self, namespace: str) -> tuple[str, ...]:
        """The prefixes of URIs that namespaced kinds of this namespace may read."""
        return tuple(prefix.replace("{namespace}", namespace) for prefix in self.catalogue_prefixes)
