"""What the tenants' benchmark works out from what it reads: a wrong sum there would be a wrong promise."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from scale import plot
from scale.figures import Bench, Target
from scale.peer import INDEXES, collection
from scale.tenant_meters import of_ours, tenant_ready
from scale.tenant_world import Metrics, tenant

if TYPE_CHECKING:
    from pathlib import Path

EXPOSITION = """\
# TYPE searchops_workqueue_queue_duration_seconds histogram
searchops_workqueue_queue_duration_seconds_bucket{name="searchtenants",le="0.1"} 50
searchops_workqueue_queue_duration_seconds_bucket{name="searchtenants",le="1.0"} 90
searchops_workqueue_queue_duration_seconds_bucket{name="searchtenants",le="10.0"} 100
searchops_workqueue_queue_duration_seconds_bucket{name="searchtenants",le="+Inf"} 100
# TYPE searchops_reconcile counter
searchops_reconcile_total{controller="searchtenant",result="success"} 7
searchops_reconcile_total{controller="searchtenant",result="requeue_after"} 3
searchops_reconcile_total{controller="embeddingmodel",result="success"} 5
"""


def test_sums_and_quantiles_of_a_scrape() -> None:
    metrics = Metrics(EXPOSITION)
    assert metrics.total("searchops_reconcile_total", controller="searchtenant") == 10
    name = "searchops_workqueue_queue_duration_seconds"
    assert metrics.quantile(name, 0.5, name="searchtenants") == pytest.approx(0.1)
    assert metrics.quantile(name, 0.99, name="searchtenants") == pytest.approx(1 + 9 * 0.9)
    assert metrics.quantile(name, 0.99, name="reindexjobs") == 0.0


def test_leases_are_no_writes_of_ours() -> None:
    before = Counter({"PATCH searchtenants/status": 5, "PUT leases": 3})
    after = Counter({"PATCH searchtenants/status": 9, "PUT leases": 30, "POST secrets": 2})
    assert of_ours(before, after) == {"PATCH searchtenants/status": 4, "POST secrets": 2}


def test_a_tenant_is_ready_at_its_own_generation_only() -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "observedGeneration": 1}
    assert tenant_ready({"metadata": {"generation": 1}, "status": ready})
    assert not tenant_ready({"metadata": {"generation": 2}, "status": ready})
    assert not tenant_ready({"metadata": {"generation": 1}})


def test_the_peer_is_given_what_a_tenant_gets() -> None:
    fields = {field["name"] for field in tenant(7)["spec"]["fields"]}
    assert fields == set(INDEXES)
    spec = collection(7)["spec"]
    assert len(spec["payloadIndexes"]) == 5
    assert spec["aliases"] == ["peer.merchant-00007"]


@pytest.mark.parametrize(
    ("target", "value", "share"),
    [("<= 30", 15.0, 0.5), (">= 150", 75.0, 2.0), (">= 150", 300.0, 0.5), ("== 0", 0.0, plot.LEAST), ("== 0", 4, 10.0)],
)
def test_share_of_what_is_allowed(target: str, value: float, share: float) -> None:
    assert plot.share_of_target({"target": target}, value) == pytest.approx(share)


def test_a_target_of_another_size_is_told_and_not_judged(tmp_path: Path) -> None:
    bench = Bench("tenants", tmp_path)
    bench.record("rate", [1.0], "tenants/s", Target(">=", 150), judged=False)
    (line,) = (tmp_path / "tenants.jsonl").read_text(encoding="utf-8").splitlines()
    assert (json.loads(line)["target"], json.loads(line)["holds"]) == (">= 150", None)


def test_the_last_line_of_a_figure_is_drawn(tmp_path: Path) -> None:
    bench = Bench("tenants", tmp_path)
    bench.record("restart", [40.0, 50.0, 60.0], "s", Target("<=", 30))
    bench.record("restart", [10.0, 20.0, 12.0], "s", Target("<=", 30))
    bench.record("beside: rate", [20.0], "tenants/s", peer={"name": "other", "value": 2.0, "ratio": 0.1})
    lines = (tmp_path / "tenants.jsonl").read_text(encoding="utf-8").splitlines()
    figures: list[dict[str, Any]] = plot.newest(lines)
    assert [(one["figure"], one["value"]) for one in figures] == [("restart", 12.0), ("beside: rate", 20.0)]
    plot.draw(figures, tmp_path / "out.png")
    assert "| restart | 12 s (10–20) | <= 30 | yes |" in plot.table(figures)
    page = f"before\n{plot.BEGIN}\nold\n{plot.END}\nafter"
    assert plot.put_between(page, "new") == page.replace("old", "new")
    with pytest.raises(ValueError, match="marks"):
        plot.put_between("no marks", "new")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no figure has a target"):
        plot.draw([json.loads(lines[-1])], tmp_path / "none.png")
