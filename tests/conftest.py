"""Fixtures of every test folder."""

import asyncio

import pytest

LONGEST_FIRST = {"test_killed_operator": 0, "fleet": 1}
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
        item.add_marker(pytest.mark.xdist_group(group))


def _group(item: pytest.Item) -> str:
    if "fleet" in getattr(item, "fixturenames", ()) and item.path.parent.name == "e2e":
        return "fleet"
    return item.path.stem if item.path.parent.name == "e2e" else str(item.path)
