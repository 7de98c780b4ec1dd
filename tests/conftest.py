"""Fixtures of every test folder."""

import asyncio

import pytest

#: What takes longest, in this order: the end of a run is that of its last file, and one that begins late ends alone.
LONGEST_FIRST = {
    name: place
    for place, name in enumerate(
        (
            "test_killed_operator",
            "fleet",
            "test_build_stages",
            "test_fixture_evaluation",
            "test_onnx_export",
            "test_token_register_faults",
            "test_access_probe_faults",
            "test_shared_tier_faults",
            "test_qdrant_double_process",
            "test_tenant_death_faults",
            "test_tenant_faults",
            "test_tenant_plan_properties",
        )
    )
}
pytest_plugins = ["searchops_sandbox.pytest_fixtures"]

# pytest-asyncio leaks the loop that the first get_event_loop() makes, and -W error fails a later, innocent test.
asyncio.set_event_loop(None)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in its own hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What has to be in one process, and the longest first: the end of a run is that of its last group.

    The tests that share the platform are one group, each file of another kind is one. The story of the killed operator
    takes as long as all others on the platform together, and goes beside them.
    """
    named = [(_group(item), item) for item in items]
    items[:] = [item for _, item in sorted(named, key=lambda pair: LONGEST_FIRST.get(pair[0], len(LONGEST_FIRST)))]
    for group, item in named:
        if item.path.parent.name == "e2e":
            item.add_marker(pytest.mark.xdist_group(group))


def _group(item: pytest.Item) -> str:
    if "fleet" in getattr(item, "fixturenames", ()) and item.path.parent.name == "e2e":
        return "fleet"
    return item.path.stem
