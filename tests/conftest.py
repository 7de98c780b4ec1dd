"""Fixtures of every test folder."""

import asyncio

pytest_plugins = ["searchops_sandbox.pytest_fixtures"]


def pytest_configure() -> None:
    """No loop where no test has set one: looptime asks the policy for the current loop before plain tests too.

    The policy would make one then that nobody closes, which is an error under ``filterwarnings = error``.
    """
    asyncio.set_event_loop(None)
