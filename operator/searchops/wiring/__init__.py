"""Puts the operator together: settings in, running tasks out. The only place that knows every part."""

from searchops.wiring.replica import LEASE_NAME, run_operator

__all__ = ["LEASE_NAME", "run_operator"]
