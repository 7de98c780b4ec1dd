"""Fixtures of every test folder."""

import asyncio

pytest_plugins = ["searchops_sandbox.pytest_fixtures"]

# pytest-asyncio leaks the loop that the first get_event_loop() makes, and -W error fails a later, innocent test.
asyncio.set_event_loop(None)
