"""What the operator last saw of each cell: it writes a report wherever something changed, and it is read here.

The report is asked of the API server, so that nobody needs a way to the cells themselves.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.table import Table

from searchops.api.room import CellHold
from searchops.controllers.cell_watch import REPORT_KEY, REPORT_MAP
from searchops.planning.cell_room import ROOM_KEY, ROOM_MAP, held_message
from searchops.planning.names import CELL_ANNOTATION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from searchops.adapters.kube_api import KubeApi

Rows = dict[str, dict[str, Any]]


async def read_report(api: KubeApi, namespace: str) -> Rows | None:
    """The report by cell; None where the operator has not written one yet."""
    found = await api.get(f"/api/v1/namespaces/{namespace}/configmaps/{REPORT_MAP}")
    text = ((found or {}).get("data") or {}).get(REPORT_KEY)
    if text is None:
        return None
    rows: Rows = json.loads(text)
    return rows


async def read_holds(api: KubeApi, namespace: str) -> dict[str, CellHold]:
    """Cells that are out of disk or memory, as the operator keeps them."""
    found = await api.get(f"/api/v1/namespaces/{namespace}/configmaps/{ROOM_MAP}")
    text = ((found or {}).get("data") or {}).get(ROOM_KEY) or "{}"
    return {cell: CellHold.model_validate(item) for cell, item in json.loads(text).items()}


def with_holds(report: Mapping[str, Mapping[str, Any]], holds: Mapping[str, CellHold]) -> Rows:
    """The report with what is held, and since when."""
    held = {cell: {"fullSince": hold.since} for cell, hold in holds.items()}
    return {cell: {**report.get(cell, {}), **held.get(cell, {})} for cell in sorted({*report, *held})}


def cell_rows(report: Mapping[str, Mapping[str, Any]], tenants: Iterable[Mapping[str, Any]]) -> Rows:
    """Each cell with its tenants: how many there are, how many of them are Ready.

    Args:
        report: as the operator wrote it.
        tenants: every SearchTenant.
    """
    total: Counter[str] = Counter()
    ready: Counter[str] = Counter()
    for tenant in tenants:
        cell = (tenant["metadata"].get("annotations") or {}).get(CELL_ANNOTATION)
        if cell:
            total[cell] += 1
            conditions = tenant.get("status", {}).get("conditions", [])
            ready[cell] += any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return {
        cell: {**report.get(cell, {}), "tenants": total[cell], "ready": ready[cell]}
        for cell in sorted({*report, *total})
    }


def cell_table(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """The cells for people; a dash is what nobody has read."""
    columns = (
        "cell",
        "answers",
        "version",
        "collections",
        "usable",
        "maps",
        "files",
        "tenants ready",
        "orphans",
        "notes",
    )
    table = Table(*columns)
    for cell, row in rows.items():
        answers = row.get("answers")
        table.add_row(
            cell,
            "-" if answers is None else "yes" if answers else "no",
            row.get("version") or "-",
            str(row.get("collections", "-")),
            str(row.get("usable", "-")),
            _percent(row.get("mapsPercent")),
            _percent(row.get("filesPercent")),
            f"{row['ready']}/{row['tenants']}",
            str(len(row.get("orphans", []))),
            _notes(row),
        )
    return table


def _percent(found: int | None) -> str:
    return "-" if found is None else f"{found} %"


def _notes(row: Mapping[str, Any]) -> str:
    notes = ["drained"] if row.get("draining") else []
    if row.get("fullSince"):
        notes.append("full")
    return ", ".join(notes)


def hold_lines(holds: Mapping[str, CellHold]) -> list[str]:
    """One line for each cell that is held, with what to do."""
    return [held_message(cell, hold) for cell, hold in sorted(holds.items())]


def orphan_lines(report: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each orphan, as ``cell collection``."""
    return [f"{cell} {name}" for cell, row in sorted(report.items()) for name in row.get("orphans", [])]
