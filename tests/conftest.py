"""Fixtures of every test folder."""

pytest_plugins = ["searchops_sandbox.pytest_fixtures"]
