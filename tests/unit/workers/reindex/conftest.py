"""On Python 3.11 the first look for an event loop makes one that nobody closes, unless the thread says it has none."""

from __future__ import annotations

import asyncio

asyncio.set_event_loop(None)
