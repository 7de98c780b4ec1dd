"""The gateway's settings, read from the environment once."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class CellRoute(BaseModel):
    """How the gateway reaches a cell."""

    url: str
    grpc_port: int | None = None


class GatewaySettings(BaseSettings):
    """Environment variables ``SEARCHOPS_GATEWAY_*``; `cells` is JSON: name → {url}.

    Attributes:
        servers: gRPC addresses (``host:port``) of the serving pool.
        binding_seconds: how long a binding is used without being read again; the operator waits at least twice this
            before a backfill starts.
        max_batch: products of one indexing request that are written in one request to the database.
    """

    model_config = SettingsConfigDict(env_prefix="SEARCHOPS_GATEWAY_", frozen=True, extra="ignore")

    cells: dict[str, CellRoute] = Field(default_factory=dict)
    servers: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8090
    binding_seconds: Annotated[float, Field(ge=0, le=300)] = 2.0
    request_seconds: Annotated[float, Field(gt=0, le=120)] = 10.0
    max_body_bytes: Annotated[int, Field(ge=1024)] = 33_554_432
    max_products: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    max_batch: Annotated[int, Field(ge=1, le=512)] = 128
    max_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 256
    max_clients: Annotated[int, Field(ge=1, le=100_000)] = 1024
