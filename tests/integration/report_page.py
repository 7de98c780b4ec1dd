"""A report made from a real decision with hostile texts, and what is read back from a page that shows it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from searchops_workers.holdout.decide import decide
from searchops_workers.holdout.evidence import evidence_bytes, evidence_document
from searchops_workers.holdout.report.page import html_report
from searchops_workers.holdout.runs import Ranking, Run
from unit.workers.holdout.gate_samples import make_world

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Page

HOSTILE: Final = {
    0: "<script>document.title='taken'</script>",
    23: "\"'><img src=x onerror=alert(1)> &amp; &lt;b&gt;",
    46: "</style></details><style>body{display:none}</style>",
    69: "برغي ستانلس M8 × 40",
    92: "בורג \u202e05 × 8M\u202c ‏נירוסטה",
    115: "👩‍🔧 🇪🇺 🔩 schräubchen ｆｕｌｌ",
    138: "W" * 1024,
    161: "👩‍🔧" * 250,
    184: "{{ 7 * 7 }} {% raw %} ${7*7}",
}
"""Texts of lost queries by their number."""
CANDIDATE: Final = "shop-encoder-r3-" + "<i>W</i>" * 1300
"""A name of 10 kB without a blank."""
LOST: Final = tuple(sorted({*range(0, 330, 5), *HOSTILE}))
WON: Final = (9, 52, 57)

RECTANGLES: Final = """selector => [...document.querySelectorAll(selector)].map(one => {
  const drawn = one.tagName === 'svg' && one.firstElementChild ? one.firstElementChild : one;
  const box = drawn.getBoundingClientRect();
  return {left: box.left, right: box.right, top: box.top, bottom: box.bottom,
          x: (box.left + box.right) / 2, y: (box.top + box.bottom) / 2, data: {...one.dataset}};
})"""
CONTRASTS: Final = """() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = one => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (colour !== 'rgba(0, 0, 0, 0)') return numbers(colour);
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || one.closest('title, style')) continue;
    const inside = one instanceof SVGElement;
    const style = getComputedStyle(one);
    const front = light(numbers(inside ? style.fill : style.color));
    const back = light(behind(inside ? one.closest('svg:not(svg svg)') : one));
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    const name = one.className.baseVal ?? one.className;
    found.push([Math.round(ratio * 100) / 100, name, walker.currentNode.data.slice(0, 40)]);
  }
  return found;
}"""


@dataclass(frozen=True)
class Report:
    """A page on disk and the evidence that it shows, as it reads back from its JSON."""

    path: Path
    evidence: dict[str, Any]

    @property
    def uri(self) -> str:
        return self.path.as_uri()


@dataclass(frozen=True)
class Scale:
    """From values to pixels, by two ticks of an axis as a reader sees them."""

    value: float
    pixel: float
    rate: float

    def at(self, value: float) -> float:
        return self.pixel + (value - self.value) * self.rate


def make_report(folder: Path) -> Report:
    """A decision on 330 families: 70 lost, 3 won, others with small moves and unjudged products."""
    changes: dict[int, dict[str, Any]] = {number: {"weight": float(1 + number % 17)} for number in range(330)}
    for number, text in HOSTILE.items():
        changes[number] |= {"text": text, "weight": float(20 + number % 7)}
    for number in range(300, 330):
        changes[number]["split"] = "preservation"
    world = make_world(folder / "holdout", 330, changes, unjudged=["p7-9", "p8-1", "p10-5", "p10-6"])
    rankings = dict(world.losing([f"q{number}" for number in LOST]).rankings)
    for number in range(1, 330, 7):
        products = list(rankings[f"q{number}"].products)
        products[1], products[4] = products[4], products[1]
        products[9] = f"p{number}-11<svg/onload=alert(1)>"
        rankings[f"q{number}"] = Ranking(tuple(products))
    incumbent = world.losing([f"q{number}" for number in WON], "shop-encoder-r2-11aa22bb")
    candidate = Run(CANDIDATE, rankings)
    question = replace(world.ask(candidate), incumbent=incumbent, repeat=incumbent)
    document = evidence_document(question, decide(question))
    path = folder / "evidence.html"
    path.write_text(html_report(document), encoding="utf-8")
    return Report(path, json.loads(evidence_bytes(document)))


async def rectangles(page: Page, selector: str) -> list[dict[str, Any]]:
    """Where the elements stand on the page, with their data attributes."""
    found: list[dict[str, Any]] = await page.evaluate(RECTANGLES, selector)
    return found


async def scale(page: Page, selector: str, *, up: bool = False) -> Scale:
    """The scale that the first and the last tick of an axis say."""
    ticks = await rectangles(page, f"{selector} [data-tick{'-up' if up else ''}]")
    key, along = ("tickUp", "y") if up else ("tick", "x")
    first, last = ticks[0], ticks[-1]
    low, high = float(first["data"][key]), float(last["data"][key])
    return Scale(low, first[along], (last[along] - first[along]) / (high - low))
