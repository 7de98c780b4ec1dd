"""The gateway's settings, and the cells and pools that it knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_settings import BaseSettings, SettingsConfigDict


class SettingsError(ValueError):
    """Settings that cannot be used: which, what was seen, what is wanted."""


class CellEndpoint(BaseModel):
    """How a cell is reached.

    Attributes:
        url: base URL of its REST API.
        grpc_port: where given, points are read and written over gRPC.
        ca_cert: file with the CA that signed the cell's certificate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")]
    grpc_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    ca_cert: Path | None = None


class Endpoints(BaseModel):
    """Cells by the name that tokens carry, and pools of Triton servers (``host:port`` of their gRPC APIs)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cells: dict[str, CellEndpoint] = Field(default_factory=dict)
    pools: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @property
    def servers(self) -> tuple[str, ...]:
        """Every Triton server once, in the order of the pools' names."""
        return tuple(dict.fromkeys(url for name in sorted(self.pools) for url in self.pools[name]))


class GatewaySettings(BaseSettings):
    """Environment variables ``SEARCHOPS_GATEWAY_*``.

    Attributes:
        config: JSON file with ``cells`` and ``pools``; read again when it changes, and merged over the two below.
        cells: cells as JSON, ``{"eu-1": {"url": "http://…:6333", "grpcPort": 6334}}``.
        pools: pools as JSON, ``{"default": ["triton-0:8001"]}``.
        credentials: JSON file with the gateway's own credentials, which the operator writes; read again when it
            changes. Without it tenants of the tiers Shared and ShardKey are not served.
        servers: further Triton servers that belong to no named pool.
        binding_seconds: how long a binding may be used before it is read again; the operator waits longer than this.
        max_products: most products of one request.
        max_batch: products that are encoded and written at once; the database's own cap is 512.
        max_body_bytes: largest request body.
        searches_in_flight: searches worked on at once; `searches_waiting` more may wait, others get 503.
        request_seconds: deadline of a request.
        cell_seconds: deadline of one request to a cell.
        tenant_metrics_port: serves what is counted of each tenant's searches, for the live signals of rollouts, apart
            from what merchants reach; absent: nothing is counted by tenant.
        tenant_series: most tenants that are counted so, ten series a tenant: those searched last.
        encode_query_seconds: deadline of encoding one query; then the lexical legs answer alone.
    """

    model_config = SettingsConfigDict(env_prefix="SEARCHOPS_GATEWAY_", frozen=True, extra="ignore")

    host: str = "0.0.0.0"  # noqa: S104 - a Pod listens on its own address
    port: Annotated[int, Field(ge=0, le=65535)] = 8090
    config: Path | None = None
    credentials: Path | None = None
    cells: dict[str, CellEndpoint] = Field(default_factory=dict)
    pools: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    servers: tuple[str, ...] = ()
    binding_seconds: Annotated[float, Field(ge=0, le=300)] = 2.0
    max_products: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    max_batch: Annotated[int, Field(ge=1, le=512)] = 128
    max_body_bytes: Annotated[int, Field(ge=1024, le=1_073_741_824)] = 33_554_432
    max_limit: Annotated[int, Field(ge=1, le=333)] = 100
    searches_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 64
    searches_waiting: Annotated[int, Field(ge=0, le=100_000)] = 256
    writes_in_flight: Annotated[int, Field(ge=1, le=1_000)] = 8
    writes_waiting: Annotated[int, Field(ge=0, le=10_000)] = 32
    request_seconds: Annotated[float, Field(gt=0, le=600)] = 60.0
    cell_seconds: Annotated[float, Field(gt=0, le=120)] = 10.0
    encode_query_seconds: Annotated[float, Field(gt=0, le=60)] = 2.0
    tenant_metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    tenant_series: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    log_level: Annotated[str, Field(pattern=r"^(debug|info|warning|error)$")] = "info"


class EndpointSource:
    """The endpoints in force: those of the settings, and those of the file, which may change while we run."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._stamp: tuple[int, int] | None = None
        self._given = {**settings.pools, **({"": settings.servers} if settings.servers else {})}
        self._current = Endpoints(cells=settings.cells, pools=self._given)
        self.current()

    def current(self) -> Endpoints:
        """The newest endpoints; a file that was changed into something unreadable leaves the last good ones.

        Raises:
            SettingsError: where the file cannot be read the first time.
        """
        path = self._settings.config
        if path is None:
            return self._current
        try:
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            if stamp == self._stamp:
                return self._current
            read = Endpoints.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, ValidationError) as error:
            if self._stamp is not None:
                return self._current
            raise SettingsError(
                f"SEARCHOPS_GATEWAY_CONFIG {path}: {error}; wanted a JSON file with cells and pools"
            ) from error
        self._stamp = stamp
        self._current = Endpoints(cells={**self._settings.cells, **read.cells}, pools={**self._given, **read.pools})
        return self._current
