"""The live table: model, tenants and what is said, redrawn as the objects change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from searchops_sandbox.demo.story import View


def render(view: View) -> Group:
    """One frame."""
    status = view.model.get("status", {})
    wave = (status.get("wave") or {}).get("name", "-")
    head = Text.assemble(
        ("searchops ", "bold"),
        f"phase {status.get('phase', '-')} · active {_name(status, 'active')} · ",
        f"candidate {_name(status, 'candidate')} · wave {wave}",
    )
    table = Table("tenant", "cell", "ready", "bound to", "rebuild", "points", expand=True)
    rebuilds = {item["metadata"]["name"]: item.get("status", {}) for item in view.reindexes}
    for item in sorted(view.tenants, key=lambda one: one["metadata"]["name"]):
        own = item.get("status", {})
        ready = next((one["status"] for one in own.get("conditions", []) if one["type"] == "Ready"), "-")
        job = rebuilds.get((own.get("rebuild") or {}).get("reindexJob", ""), {})
        percent = (job.get("progress") or {}).get("percent")
        rebuild = f"{job.get('phase', '')} {percent if percent is not None else ''}".strip()
        bound = own.get("binding", {}).get("revision") or "lexical legs"
        points = str(own.get("usage", {}).get("points", "-"))
        table.add_row(item["metadata"]["name"], own.get("cell", "-"), ready, bound, rebuild, points)
    return Group(head, Text(view.step, style="cyan"), table, *(Text(line) for line in view.lines))


def _name(status: dict[str, dict[str, str]], which: str) -> str:
    return (status.get(which) or {}).get("revision", "-")


class LiveTable:
    """Draws on a terminal; elsewhere the lines are printed one by one."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=False)

    def __enter__(self) -> LiveTable:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, view: View) -> None:
        """Redraw."""
        if self._console.is_terminal:
            self._live.update(render(view))

    def say(self, line: str) -> None:
        """A line for people, where nothing is redrawn."""
        if not self._console.is_terminal:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
