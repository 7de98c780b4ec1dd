"""A small controller runtime that knows no domain word: queue, cache, workers, Lease, resync, status, events."""
