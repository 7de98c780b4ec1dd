"""Figures of the benchmarks: one JSON object a figure, appended to ``build/bench/<name>.jsonl``."""

from __future__ import annotations

import json
import operator
import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

BENCH = Path(__file__).resolve().parents[2] / "build" / "bench"
SEED = 20_261_124
PACKAGES = ("searchops", "pydantic", "kopf", "numpy", "scipy", "qdrant-client")
_COMPARISONS = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


@dataclass(frozen=True, slots=True)
class Target:
    """What is promised of a figure."""

    comparison: Literal["<=", ">=", "=="]
    value: float

    def holds(self, seen: float) -> bool:
        """Whether the figure is as promised."""
        return bool(_COMPARISONS[self.comparison](seen, self.value))

    def __str__(self) -> str:
        return f"{self.comparison} {self.value:g}"


class Bench:
    """Writes the figures of one benchmark.

    Args:
        name: the file's name.
        directory: where the file is.
    """

    def __init__(self, name: str, directory: Path = BENCH) -> None:
        self._path = directory / f"{name}.jsonl"

    def record(
        self,
        figure: str,
        repeats: Sequence[float],
        unit: str,
        target: Target | None = None,
        *,
        peer: dict[str, Any] | None = None,
        judged: bool = True,
        **details: Any,
    ) -> float:
        """Append a figure: the median of its repeats, with the smallest and the greatest as its spread.

        Args:
            figure: what was measured.
            repeats: one value a repeat, at least one.
            unit: of the values.
            target: what is promised; None where nothing is, or where this figure alone cannot show it.
            judged: False where the target is promised of another size: it is told, and not said to hold or not.
            peer: the same of another program in the same run: name, value and ratio.
            details: anything else that a reader needs to judge the figure.

        Returns:
            The median.
        """
        value = median(repeats)
        line = {
            "figure": figure,
            "value": _rounded(value),
            "unit": unit,
            "target": str(target) if target is not None else None,
            "holds": target.holds(value) if target is not None and judged else None,
            "peer": peer,
            "repeats": len(repeats),
            "spread": [_rounded(min(repeats)), _rounded(max(repeats))],
            "machine": machine(),
            "versions": versions(),
            "seed": SEED,
            **({"details": details} if details else {}),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        return value


def machine() -> dict[str, Any]:
    """What the figures were taken on; the load says who else was at work."""
    one, five, _ = os.getloadavg()
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memoryGB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load": [round(one, 1), round(five, 1)],
    }


def versions() -> dict[str, str]:
    """Python and the libraries that the figures depend on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
