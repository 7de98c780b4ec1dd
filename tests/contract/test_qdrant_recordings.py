"""Every recorded exchange of a real server, replayed in order: status, error shape and effect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from searchops_sandbox.qdrant.contract import IN_CLUSTER_MODE, servers
from searchops_sandbox.qdrant.replay import Answer, Exchange, Replayer, Server, differences, load

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDINGS = Path(__file__).parent / "recordings"
BEFORE = ("01-collections", "02-aliases", "03-points", "04-query", "05-access", "06-strict-mode")
SINGLE_NODE, CLUSTER_MODE = "07-shard-keys", "07-shard-keys-cluster-mode"
AFTER = ("08-snapshots", "09-telemetry")

# The double keeps one engine shard a collection and refuses more, so what the recording does with `ren` (two shards)
# finds no collection. Everything else answers as recorded.
REFUSED_BY_DOUBLE = {
    13: (501, "shard_number above 1: one engine shard a collection"),
    14: (404, "`ren` was refused"),
    15: (404, "`ren` was refused"),
    16: (404, "`ren` was refused"),
}
# The vectors orthogonal to the query all score 0.0: which one is returned is chance.
TIED = {"04-query[6]"}
# In the sparse leg all points but 2 score the same, so their ranks, and with them the fused scores, are chance.
CHANCE_BUT_POINT_2 = {"04-query[0]", "04-query[1]"}
# Whole-server answers name `ren` and what the machine measured; test_telemetry_* below look at their effect.
SUMMARIES = {"09-telemetry[0]"}

ALL = load(RECORDINGS, (*BEFORE, SINGLE_NODE, *AFTER))
CLUSTER = {exchange.index: exchange for exchange in load(RECORDINGS, (CLUSTER_MODE,))}
pytestmark = pytest.mark.parametrize("server", [*servers(), IN_CLUSTER_MODE], indirect=True, scope="module")
COLLECTIONS = ("t1.g1", "t1.g2", "strict", "cust", "ren", "snap", "snap2")


def in_cluster_mode(client: httpx.Client, api_key: str) -> bool:
    answer = client.get("/cluster", headers={"api-key": api_key})
    return bool(answer.json()["result"]["status"] == "enabled")


@pytest.fixture(scope="module")
def replayed(server: Server) -> Iterator[dict[str, Answer]]:
    """Answers by exchange, from one run through all recordings on a server without these collections."""
    with httpx.Client(base_url=server.url, timeout=60.0) as client:
        key = {"api-key": server.api_key}
        names = {c["name"] for c in client.get("/collections", headers=key).json()["result"]["collections"]}
        assert not names, f"the recordings need an empty server, this one holds {sorted(names)}"
        middle = CLUSTER_MODE if in_cluster_mode(client, server.api_key) else SINGLE_NODE
        replayer = Replayer(client, server.api_key)
        try:
            exchanges = load(RECORDINGS, (*BEFORE, middle, *AFTER))
            yield {exchange.key: replayer.send(exchange) for exchange in exchanges}
        finally:
            for name in COLLECTIONS:
                client.delete(f"/collections/{name}", headers=key)


@pytest.mark.parametrize("exchange", ALL, ids=lambda e: f"{e.key} {e.note}")
def test_answers_as_recorded(exchange: Exchange, server: Server, replayed: dict[str, Answer]) -> None:
    if exchange.key not in replayed:
        assert exchange.file == SINGLE_NODE, "only the other mode's shard keys may be left out"
        exchange = CLUSTER[exchange.index]
    answer = replayed[exchange.key]
    shard_keys = exchange.file in (SINGLE_NODE, CLUSTER_MODE)
    if server.double and shard_keys and exchange.index in REFUSED_BY_DOUBLE:
        status, _ = REFUSED_BY_DOUBLE[exchange.index]
        assert answer.status == status
        assert isinstance(answer.body["status"]["error"], str)
    elif exchange.key in SUMMARIES:
        assert answer.status == exchange.response["status"]
    elif exchange.key in CHANCE_BUT_POINT_2:
        said, got = (body["result"]["points"] for body in (exchange.response["body"], answer.body))
        assert len(got) == len(said)
        assert got[0]["score"] == pytest.approx(max(hit["score"] for hit in got))
        scores = [{hit["id"]: hit["score"] for hit in hits} for hits in (said, got)]
        assert scores[1][2] == pytest.approx(scores[0][2], rel=1e-6)
    else:
        assert differences(exchange, answer, tied=exchange.key in TIED) == []


def test_telemetry_is_the_bulk_read_of_every_configuration(server: Server, replayed: dict[str, Answer]) -> None:
    said = {e.key: e for e in ALL}["09-telemetry[0]"].response["body"]["result"]["collections"]
    got = replayed["09-telemetry[0]"].body["result"]["collections"]
    configurations = {c["id"]: c["config"] for c in got["collections"]}
    assert got["number_of_collections"] == len(configurations)
    recorded = {c["id"]: c["config"] for c in said["collections"] if not (server.double and c["id"] == "ren")}
    assert set(configurations) == set(recorded)
    for name, config in recorded.items():
        assert configurations[name]["params"] == config["params"], name
        assert configurations[name].get("metadata") == config.get("metadata"), name
        assert configurations[name].get("strict_mode_config") == config.get("strict_mode_config"), name


def test_the_double_refuses_exactly_what_is_listed(server: Server, replayed: dict[str, Answer]) -> None:
    refused = {key for key, answer in replayed.items() if answer.status == 501}
    mode = CLUSTER_MODE if f"{CLUSTER_MODE}[0]" in replayed else SINGLE_NODE
    assert refused == ({f"{mode}[13]"} if server.double else set())


def test_a_double_is_asked_in_both_modes(server: Server, replayed: dict[str, Answer], request: Any) -> None:
    clustered = f"{CLUSTER_MODE}[0]" in replayed
    asked_for = request.node.callspec.params["server"]
    assert clustered == (asked_for == IN_CLUSTER_MODE) or not server.double
