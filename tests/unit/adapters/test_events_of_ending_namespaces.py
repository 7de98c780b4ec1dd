"""An event for what is deleted with its namespace is not a failure; a right that is missing is."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from searchops.adapters.kube import KubeEvents
from searchops.adapters.kube_api import KubeApi, _translate
from searchops.runtime.errors import Terminal
from searchops.runtime.recorder import Event

EVENT = Event({"namespace": "shop", "name": "acme"}, "Deleted", "it is gone", False)
ENDING = 'events "acme" is forbidden: unable to create new content in namespace shop because it is being terminated'
NO_RIGHT = 'events.events.k8s.io is forbidden: User "system:serviceaccount:a:b" cannot create resource "events"'


class RefusingApi:
    """Answers every create with 403."""

    def __init__(self, message: str) -> None:
        self.message = message
        self.asked: list[str] = []

    async def create(self, path: str, body: Any) -> Any:
        del body
        self.asked.append(path)
        raise _translate(403, json.dumps({"message": self.message}), "POST", path)


def events(api: RefusingApi) -> KubeEvents:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return KubeEvents(cast("KubeApi", api), instance="one", now=lambda: moment, fallback_namespace="system")


async def test_a_namespace_that_ends_takes_no_event_and_that_is_no_failure() -> None:
    api = RefusingApi(ENDING)
    await events(api).publish(EVENT)
    assert api.asked == ["/apis/events.k8s.io/v1/namespaces/shop/events"]


async def test_a_missing_right_is_told() -> None:
    with pytest.raises(Terminal, match="cannot create resource"):
        await events(RefusingApi(NO_RIGHT)).publish(EVENT)
