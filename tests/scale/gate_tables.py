"""The tables of docs/statistics.md, from the figures that `scale.plot_gate` keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LEFT_OUT: Final = ("A", "A'", "B", "C", "D", "judged")


def tables(figures: dict[str, Any]) -> dict[str, str]:
    """Every table by the name of its marks."""
    return {
        "run": f"Run on {figures['on']} on {figures['machine']}.",
        "promises": _promises(figures),
        "losses": _losses(figures),
        "changes": _by_label(figures, "change", "change"),
        "queries": _queries(figures),
        "attempts": _attempts(figures),
        "resampled": _by_label(figures, "resampled", "models, Good families"),
        "rules": _rules(figures),
        "erosion": _former(figures, "erosion", "former A'", "lost by promotions", "A'"),
        "unjudged": _former(figures, "unjudged", "former judged", "unjudged", "judged"),
        "draws": _by_label(figures, "draws", "draws, Good families", places="x"),
        "ladder": _ladder(figures),
        "electronics": _electronics(figures),
    }


def _rows(figures: dict[str, Any], curve: str) -> list[dict[str, Any]]:
    return [row for row in figures["rows"] if row["curve"] == curve]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(line)} |" for line in (head, *rows)]
    return "\n".join((lines[0], "|---" * len(head) + "|", *lines[1:]))


def _share(value: float) -> str:
    return f"{value:.1%}"


def _within(row: dict[str, Any], what: str) -> str:
    low, high = row[f"{what}Interval"]
    return f"{row[what]:.1%} ({low * 100:.1f}–{high * 100:.1f})"


def _promises(figures: dict[str, Any]) -> str:
    holds = {True: "yes", False: "**no**", None: "–"}
    return _table(
        ("promise", "seen", "promised", "holds"),
        (
            (one["figure"].removeprefix("gate, "), _share(one["value"]), one["target"], holds[one["holds"]])
            for one in figures["promises"]
        ),
    )


def _losses(figures: dict[str, Any]) -> str:
    gains = {(row["label"], row["x"]): row for row in _rows(figures, "loss with gains")}
    return _table(
        ("Good families", "true loss", "Pass or Better", "Regressed", "with gains: Pass or Better", "Regressed"),
        (
            (
                row["label"],
                _share(row["x"]),
                _within(row, "passed"),
                _within(row, "regressed"),
                *(_within(gains[row["label"], row["x"]], what) for what in ("passed", "regressed")),
            )
            for row in _rows(figures, "loss")
        ),
    )


def _by_label(figures: dict[str, Any], curve: str, head: str, places: str = "share") -> str:
    return _table(
        (head, "true loss" if places == "share" else "", "evaluations", "Pass or Better", "Regressed"),
        (
            (
                row["label"],
                _share(row["x"]) if places == "share" else f"{row['x']:g}",
                str(row["trials"]),
                _within(row, "passed"),
                _within(row, "regressed"),
            )
            for row in _rows(figures, curve)
        ),
    )


def _queries(figures: dict[str, Any]) -> str:
    found = {(row["label"], row["x"]): row for row in _rows(figures, "queries")}
    return _table(
        ("queries a family", "P(Pass), counting queries", "P(Pass), counting families"),
        (
            (f"{x:g}", _within(found["queries", x], "passed"), _within(found["families", x], "passed"))
            for x in sorted({x for _, x in found})
        ),
    )


def _attempts(figures: dict[str, Any]) -> str:
    return _table(
        ("candidates tried", *(str(number) for number in range(1, 11))),
        ((row["label"], *map(_share, row["shares"])) for row in _rows(figures, "attempts")),
    )


def _rules(figures: dict[str, Any]) -> str:
    return _table(
        ("P(Pass) of a model that …", "whole rule", *(f"without {rule.replace(chr(39), '′')}" for rule in LEFT_OUT)),
        (
            (row["label"], _share(row["passed"]), *(_share(row["without"][rule]["passed"]) for rule in LEFT_OUT))
            for row in _rows(figures, "rules")
        ),
    )


def _former(figures: dict[str, Any], curve: str, former: str, head: str, rule: str) -> str:
    name = rule.replace("'", "′")
    return _table(
        (
            "candidate",
            head,
            "Pass",
            "Regressed",
            f"Pass without {name}",
            "former rule: Pass",
            "former rule: Regressed",
        ),
        (
            (
                row["label"],
                _share(row["x"]),
                _share(row["passed"]),
                _share(row["regressed"]),
                _share(row["without"][rule]["passed"]),
                _share(row["without"][former]["passed"]),
                _share(row["without"][former]["regressed"]),
            )
            for row in _rows(figures, curve)
        ),
    )


def _ladder(figures: dict[str, Any]) -> str:
    return _table(
        ("step", "change", "verdict", "lost", "ΔnDCG on traffic", "must be"),
        (
            (
                row["label"],
                row["change"],
                row["outcome"],
                f"{row['lost']} of {row['of']}",
                _difference(row),
                row["wanted"],
            )
            for row in _rows(figures, "ladder")
        ),
    )


def _electronics(figures: dict[str, Any]) -> str:
    rows = _rows(figures, "electronics")
    if all(row["label"] == "not here" for row in rows):
        return "The rated shop was not at hand on the machine that ran the benchmark."
    return _table(
        (
            "step",
            "change",
            "Good",
            "lost",
            "gained",
            "ΔnDCG",
            "judged@10",
            "pairs to label",
            "verdict (none is wanted)",
        ),
        (
            (
                row["label"],
                row["change"],
                str(row["good"]),
                str(row["lost"]),
                str(row["gained"]),
                _difference(row),
                " and ".join(map(_share, row["judgedShares"])),
                str(row["pairsToLabel"]),
                f"{row['outcome']}, {row['reason']}",
            )
            for row in rows
        ),
    )


def _difference(row: dict[str, Any]) -> str:
    if row["ndcgDelta"] is None or row["ndcgInterval"] is None:
        return "–"
    low, high = row["ndcgInterval"]
    return f"{row['ndcgDelta']:+.3f} ({low:+.3f} to {high:+.3f})"
