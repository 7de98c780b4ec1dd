"""No event loop is made behind the tests' back.

pytest-asyncio saves the current loop by asking for it, and asking makes one that nobody closes where none was ever set
(Python 3.11 to 3.13); under `-W error` it fails whatever test runs when it is collected. Once unset, asking makes none.
"""

from __future__ import annotations

import asyncio

asyncio.set_event_loop(None)
