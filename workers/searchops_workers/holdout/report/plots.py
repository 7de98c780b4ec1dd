"""The plots of a report as plain numbers; the page's template draws them.

No library of charts: what these plots have to show (a bound against a margin, a loss among hundreds of unchanged
queries) is no standard chart, and a few lines, circles and bars are less than a dependency of the worker's image whose
bytes may change with its version.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from searchops_workers.holdout.outcomes import LOSS_DROP
from searchops_workers.holdout.report.axes import Axis, axis, round_up
from searchops_workers.holdout.report.content import SLICES_SHOWN, Document, percent, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

BIN = 0.05
"""Width of a bar of the distribution, in nDCG."""
UNCHANGED = 5e-4
"""A difference of nDCG below this is none that a person would see."""
CELL = 0.05
"""Queries that were neither lost nor won are counted in squares of this side, so that the plot is bounded."""
MARKS_SHOWN = 400
"""Lost and won queries with a mark of their own; further ones are counted in the squares."""
_STATES = ("Regressed", "Inconclusive", "Invalid", "Better", "Pass", "NotTested")


@dataclass(frozen=True, slots=True)
class Strip:
    """One row of a forest plot: an interval and what it is held against.

    Attributes:
        figures: in words, what is counted: ``3 of 120 lost``.
        cut: whether the upper bound lies beyond the axis.
        note: what stands there instead where there is nothing to draw.
    """

    name: str
    title: str
    state: str
    figures: str
    share: str = "–"
    bounds: str = "–"
    allowed: str = "–"
    lower: float | None = None
    upper: float | None = None
    observed: float | None = None
    margins: tuple[float, ...] = ()
    cut: bool = False
    note: str = ""

    @property
    def spoken(self) -> str:
        """The row for those who do not see it."""
        if self.note:
            return f"{self.name}: {self.note}"
        return f"{self.name}: observed {self.share}, from {self.bounds}, allowed {self.allowed}: {self.state}"


@dataclass(frozen=True, slots=True)
class Forest:
    """Rows on one axis; None where no row has anything to draw."""

    axis: Axis | None
    rows: tuple[Strip, ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class _Row:
    """A row in values, before there is an axis."""

    name: str
    title: str
    state: str
    figures: str
    lower: float | None = None
    upper: float | None = None
    observed: float | None = None
    margins: tuple[float, ...] = ()
    allowed: str = "–"
    note: str = ""


def share_forest(document: Document) -> Forest:
    """Gates A and A′ and every slice of C: the share of Good families lost."""
    gates = {gate["gate"]: gate for gate in document["gates"]}
    rows = [
        _share_gate(gates["A"], "Preservation: what is Good now"),
        _share_gate(gates["A'"], "Anchored: what was Good under promoted revisions"),
    ]
    slices = sorted(gates["C"]["figures"].get("slices", []), key=lambda row: (_STATES.index(row["state"]), row["name"]))
    rows += [_slice(row) for row in slices[:SLICES_SHOWN]]
    return _forest(rows, percent, max(0, len(slices) - SLICES_SHOWN), from_zero=True)


def _share_gate(gate: Mapping[str, Any], title: str) -> _Row:
    figures, name = gate["figures"], gate["gate"].replace("'", "′")
    families = figures.get("families", 0)
    if not families:
        return _Row(name, title, gate["state"], "–", note=shown(gate["message"]))
    return _Row(
        name,
        title,
        gate["state"],
        f"{figures['lost']} of {families}",
        figures["lower"],
        figures["upper"],
        figures["lost"] / families,
        (figures["margin"],),
        percent(figures["margin"]),
    )


def _slice(row: Mapping[str, Any]) -> _Row:
    families, name = row["families"], shown(row["name"])
    said = f"{row['lost']} of {families}"
    if not families or row["margin"] is None:
        note = "no Good family" if not families else _paired(row)
        return _Row(name, "", row["state"], said, note=note)
    holm = "" if row["holm"] is None else f"Holm p {row['holm']:.2g}"
    return _Row(
        name,
        holm,
        row["state"],
        said,
        row["lower"],
        row["upper"],
        row["lost"] / families,
        (row["margin"],),
        percent(row["margin"]),
    )


def _paired(row: Mapping[str, Any]) -> str:
    said = f"{row['lost']} of {row['families']} families newly find nothing"
    return said if row["holm"] is None else f"{said} (paired test, Holm p {row['holm']:.2g})"


def graded_forest(document: Document) -> Forest:
    """Gate B and A/A: the mean difference of nDCG."""
    gates = {gate["gate"]: gate for gate in document["gates"]}
    return _forest([_graded(gates["B"]), _repeat(gates["A/A"])], _signed, 0, from_zero=False)


def _graded(gate: Mapping[str, Any]) -> _Row:
    figures, title = gate["figures"], "Graded: nDCG on traffic"
    if "delta" not in figures:
        return _Row("B", title, gate["state"], "–", note=shown(gate["message"]))
    better = figures["mustBeBetter"]
    least = 0.0 if better else -figures["margin"]
    return _Row(
        "B",
        title,
        gate["state"],
        f"{figures['families']} families",
        figures["lower"],
        figures["upper"],
        figures["delta"],
        (least,),
        "above 0" if better else f"at least {_signed(least)}",
    )


def _repeat(gate: Mapping[str, Any]) -> _Row:
    figures, title = gate["figures"], "The incumbent against itself"
    if "delta" not in figures:
        return _Row("A/A", title, gate["state"], "–", note=shown(gate["message"]))
    allowed = figures["allowedDelta"]
    return _Row(
        "A/A",
        title,
        gate["state"],
        f"{figures['lost']} lost, mean RBO {figures['meanOverlap']:.3f}",
        None,
        None,
        figures["delta"],
        (-allowed, allowed),
        f"±{allowed:.4f}",
    )


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def _forest(rows: Sequence[_Row], label: Any, left_out: int, *, from_zero: bool) -> Forest:
    values = [value for row in rows for value in row.margins]
    for row in rows:
        if row.state != "NotTested":
            values += [value for value in (row.lower, row.upper, row.observed) if value is not None]
    if not values:
        return Forest(None, tuple(_strip(row, None, label) for row in rows), left_out)
    line = _share_axis(values) if from_zero else _graded_axis(values)
    return Forest(line, tuple(_strip(row, line, label) for row in rows), left_out)


def _share_axis(values: Iterable[float]) -> Axis:
    return axis(
        0.0, min(1.0, round_up(max(0.01, *values))), lambda value: f"{value:.3%}".rstrip("0%").rstrip(".") + "%"
    )


def _graded_axis(values: Sequence[float]) -> Axis:
    low, high = min(0.0, *values), max(0.0, *values)
    room = max(0.005, (high - low) * 0.1)
    return axis(
        low - room,
        high + room,
        lambda value: f"{value:+.4f}".rstrip("0").rstrip(".").replace("-", "−") if value else "0",
    )


def _strip(row: _Row, line: Axis | None, label: Any) -> Strip:
    if line is None or row.observed is None:
        return Strip(row.name, row.title, row.state, row.figures, note=row.note or "nothing was counted")
    bounds = "–" if row.lower is None or row.upper is None else f"{label(row.lower)} to {label(row.upper)}"
    return Strip(
        row.name,
        row.title,
        row.state,
        row.figures,
        label(row.observed),
        bounds,
        row.allowed,
        None if row.lower is None else line.at(row.lower),
        None if row.upper is None else line.at(row.upper),
        line.at(row.observed),
        tuple(line.at(value) for value in row.margins),
        row.upper is not None and not line.holds(row.upper),
    )


@dataclass(frozen=True, slots=True)
class Bar:
    """Families whose difference lies in one bin, in percent of the plot."""

    left: float
    width: float
    top: float
    height: float
    count: int
    said: str
    fell: bool


@dataclass(frozen=True, slots=True)
class Distribution:
    """ΔnDCG of the families that changed; the others are told in words."""

    across: Axis
    up: Axis
    bars: tuple[Bar, ...]
    families: int
    unchanged: int
    fell: int
    rose: int

    @property
    def spoken(self) -> str:
        """The plot in one sentence."""
        return f"{self.fell} of {self.families} families fell, {self.rose} rose, {self.unchanged} did not change."


def distribution(document: Document) -> Distribution | None:
    """Mean observed ΔnDCG by family, over every gated query with a right product; None without any."""
    families: dict[str, list[float]] = {}
    for row in document["queries"]:
        if row["right"]:
            families.setdefault(row["family"], []).append(row["delta"][1])
    if not families:
        return None
    means = [math.fsum(deltas) / len(deltas) for deltas in families.values()]
    changed = [mean for mean in means if abs(mean) >= UNCHANGED]
    counts = Counter(_bin(mean) for mean in changed)
    across = axis(-1.0, 1.0, lambda value: f"{value:+.1f}".replace("-", "−") if value else "0", 4, 7.0)
    top = round_up(max(counts.values(), default=1), 4)
    up = axis(0.0, max(4.0, top), lambda value: f"{value:g}", 4, 11.0)
    bars = tuple(_bar(place, count, across, up) for place, count in sorted(counts.items()))
    fell = sum(mean < 0 for mean in changed)
    return Distribution(across, up, bars, len(means), len(means) - len(changed), fell, len(changed) - fell)


def _bin(mean: float) -> int:
    """Which bar: −1 is from −0.05 up to 0, 0 from 0 up to 0.05; the ends −1 and 1 are in the outermost bars."""
    most = round(1 / BIN)
    return min(max(math.floor(mean / BIN + 1e-9), -most), most - 1)


def _bar(place: int, count: int, across: Axis, up: Axis) -> Bar:
    low, high = place * BIN, (place + 1) * BIN
    left, right = across.at(low), across.at(high)
    top = 100 - up.at(count)
    noun = "family" if count == 1 else "families"
    said = f"{count} {noun} with ΔnDCG from {low:+.2f} to {high:+.2f}".replace("-", "−")
    height = round(100 - up.at(0) - top, 3)
    return Bar(left, round(right - left, 3), round(top, 3), height, count, said, place < 0)


@dataclass(frozen=True, slots=True)
class Mark:
    """One query, or a square of them, in percent from the left and from the top.

    Attributes:
        kind: ``lost``, ``won`` or ``other``.
        radius: in pixels.
    """

    kind: str
    x: float
    y: float
    radius: float
    query: str
    said: str


@dataclass(frozen=True, slots=True)
class Scatter:
    """nDCG of each query before and after."""

    line: Axis
    marks: tuple[Mark, ...]
    drop: float
    queries: int
    lost: int
    won: int

    @property
    def spoken(self) -> str:
        """The plot in one sentence."""
        return (
            f"{self.queries} queries: {self.lost} lost, {self.won} won, {self.queries - self.lost - self.won} neither."
        )


def scatter(document: Document) -> Scatter | None:
    """Every gated query with a right product; lost and won ones by themselves, the others counted in squares."""
    rows = [row for row in document["queries"] if row["right"]]
    if not rows:
        return None
    line = axis(0.0, 1.0, lambda value: f"{value:g}", 5, 9.0)
    lost = sorted((row for row in rows if row["lost"][1]), key=_heaviest)
    won = sorted((row for row in rows if row["good"][1] and not row["good"][0]), key=_heaviest)
    own = [*((row, "lost") for row in lost), *((row, "won") for row in won)][:MARKS_SHOWN]
    known = {row["id"] for row, _ in own}
    squares = Counter(_square(row["ndcg"]) for row in rows if row["id"] not in known)
    marks = [_crowd(square, count, line) for square, count in sorted(squares.items())]
    marks += [_single(row, kind, line) for row, kind in reversed(own)]
    return Scatter(line, tuple(marks), line.at(LOSS_DROP), len(rows), len(lost), len(won))


def _heaviest(row: Mapping[str, Any]) -> tuple[float, str]:
    return -row["weight"], row["id"]


def _square(ndcg: Sequence[float]) -> tuple[int, int]:
    most = round(1 / CELL)
    before, after = (min(round(value / CELL), most) for value in ndcg)
    return before, after


def _crowd(square: tuple[int, int], count: int, line: Axis) -> Mark:
    before, after = (place * CELL for place in square)
    radius = round(min(14.0, 2.0 + math.sqrt(count)), 2)
    noun = "query" if count == 1 else "queries"
    return Mark(
        "other", line.at(before), _down(after, line), radius, "", f"{count} {noun} near {before:.2f} → {after:.2f}"
    )


def _single(row: Mapping[str, Any], kind: str, line: Axis) -> Mark:
    before, after = row["ndcg"]
    text = shown(row["text"][:80])
    return Mark(
        kind, line.at(before), _down(after, line), 5.0, shown(row["id"]), f"{kind}: {text} ({before:.3f} → {after:.3f})"
    )


def _down(value: float, line: Axis) -> float:
    return round(100 - line.at(value), 3)
