"""The operator is put together from settings alone: three controllers over three kinds, and an exposition of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from searchops.settings import OperatorSettings
from searchops.telemetry.redaction import Redactor
from searchops.wiring.replica import Operator

if TYPE_CHECKING:
    from searchops.adapters.kube_api import KubeApi


async def test_every_kind_has_a_controller_and_every_event_reason_is_known() -> None:
    operator = Operator(_settings(), cast("KubeApi", object()), redactor=Redactor())
    assert [controller.name for controller in operator._controllers] == ["searchtenant", "embeddingmodel", "reindexjob"]
    assert [kind.cache.plural for kind in operator._kinds.all] == ["searchtenants", "embeddingmodels", "reindexjobs"]
    watched = operator._watched()
    assert watched.tenant_queue is operator._kinds.tenants.queue
    assert watched.reindexes is operator._kinds.reindexes.cache
    operator._events.record({"uid": "u"}, "CellUnreachable", "said")


def _settings() -> OperatorSettings:
    values: dict[str, Any] = {
        "fleet": "prod",
        "gateway_url": "https://search.example",
        "artifacts": "s3://artifacts/searchops",
        "namespace": "searchops",
    }
    return OperatorSettings(**values)
