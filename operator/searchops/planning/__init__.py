"""Decisions: pure functions of (spec, facts, now). No I/O, no clock, no kopf, no asyncio."""
