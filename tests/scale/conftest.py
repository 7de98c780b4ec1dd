"""No event loop is made behind the tests' back; see the runtime's tests."""

from __future__ import annotations

import asyncio

asyncio.set_event_loop(None)
