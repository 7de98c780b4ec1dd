"""Random walks of one ReindexJob through whatever may be seen: nothing is claimed that was not."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from searchops.api.meta import parse_time
from searchops.api.observed import RecallSample
from searchops.planning.conditions import holds
from searchops.planning.reindex import plan_reindex
from searchops.planning.reindex_facts import CreateWorker, MeasureRecall
from unit.planning.reindex_facts import (
    NOW,
    REVISION,
    after,
    at,
    collection,
    done,
    embedding,
    make_facts,
    make_job,
    make_tenant,
    slices,
    worker,
)

seen = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from([make_tenant()] * 6 + [make_tenant("acme-2"), make_tenant(None, REVISION), None]),
        "cell": st.sampled_from([make_facts().cell] * 5 + [None]),
        "worker": st.sampled_from(
            [None, worker(active=1), worker(complete=True, completion_time=at()), worker(failure="x")]
        ),
        "lacking": st.sampled_from([None, 0, 0, 1, 60]),
        "slices": st.sampled_from([(), slices({}), slices({}, {}), slices({}, {"sample_min_cosine": 0.5})]),
        "running": st.sampled_from([0, 0, 8]),
        "recall": st.sampled_from([None, RecallSample(50, 10, 500, 480), RecallSample(50, 10, 500, 400)]),
        "target": st.sampled_from([collection(2)] * 3 + [collection(2, status="yellow")]),
        "tenant_unreadable": st.just(False),
    }
)


@settings(max_examples=150, deadline=None)
@given(st.lists(seen, min_size=2, max_size=12))
def test_a_walk_through_whatever_may_be_seen(walk: list[dict[str, Any]]) -> None:
    job, now = make_job(), NOW
    for step in walk:
        now = parse_time(at(seconds=1 + (now - NOW).total_seconds()))
        facts = make_facts(**step)
        before = job.status
        plan = plan_reindex(job, facts, now)
        assert plan == plan_reindex(job.model_validate(job.to_wire()), facts, now)
        made = [action for action in plan.actions if isinstance(action, CreateWorker)]
        if made:
            assert facts.running < 8 or facts.worker is not None
            assert facts.tenant == make_tenant()
            assert facts.cell is not None
        if plan.status is None:
            measuring = [action for action in plan.actions if isinstance(action, MeasureRecall)]
            assert before.phase in ("Switched", "Failed", "Cancelled") or measuring
            continue
        job = after(job, plan)
        if holds(job.status.conditions, "Verified") and not holds(before.conditions, "Verified"):
            assert (facts.lacking, facts.slices) == (0, slices({}, {}))
            assert facts.recall == RecallSample(50, 10, 500, 480)
            assert facts.target == collection(2)
        if job.status.phase == "Switched":
            assert before.phase == "Verified"


def test_a_verified_job_that_its_tenant_names_no_more_is_cancelled_and_never_taken_up_again() -> None:
    """While nobody named the side, the gateway may have left writes out that no count can show."""
    job = after(embedding(), plan_reindex(embedding(), done(), NOW))
    assert holds(job.status.conditions, "Verified")
    elsewhere = make_facts(tenant=make_tenant(None))
    gone = after(job, plan_reindex(job, elsewhere, NOW))
    assert gone.status.phase == "Cancelled"
    again = plan_reindex(gone, done(), NOW)
    assert (again.actions, again.status is None or again.status.phase == "Cancelled") == ((), True)
