"""What a report says, taken from the evidence document once for both of its forms.

A report is bounded: it shows the heaviest losses and says what share of traffic the others carry; the JSON has all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Document = dict[str, Any]

LOSSES_SHOWN = 50
GAINS_SHOWN = 20
PAIRS_SHOWN = 200
SLICES_SHOWN = 60
TEXT_LIMIT = 1200
"""Characters of one text from outside that are shown; a query has at most 1,024."""
_CONTROL = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"} | {127: 0x2421}
"""Control characters are shown as their pictures: HTML has no way to hold them."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product at one rank of one side.

    Attributes:
        grade: as labelled; None where nobody judged it.
        right: whether the grade is what Good asks for.
        moved: words about where it is on the other side: ``up 2``, ``down 3``, ``same``, ``new`` or ``gone``.
    """

    name: str
    grade: int | None
    right: bool
    moved: str


@dataclass(frozen=True, slots=True)
class Changed:
    """A query that was lost or won, with both top lists.

    Attributes:
        share: of all traffic weight; None where the holdout has none.
        rows: rank by rank, incumbent and candidate; None behind the end of a list.
    """

    number: int
    query: str
    family: str
    text: str
    about: tuple[str, ...]
    before: float
    after: float
    share: float | None
    rows: tuple[tuple[Product | None, Product | None], ...]


@dataclass(frozen=True, slots=True)
class ChangedList:
    """Losses or gains, heaviest first.

    Attributes:
        share: of all traffic weight that the whole list carries.
        left_share: of all traffic weight that those carry which are not shown.
    """

    total: int
    share: float | None
    shown: tuple[Changed, ...]
    left_share: float | None

    @property
    def left_out(self) -> int:
        """How many are in the JSON alone."""
        return self.total - len(self.shown)

    @property
    def summary(self) -> str:
        """One sentence about the length of the list and what of it is left out."""
        said = f"{self.total} {'query' if self.total == 1 else 'queries'}, {percent(self.share)} of traffic"
        if not self.left_out:
            return f"{said}; most traffic first."
        return (
            f"{said}; the {len(self.shown)} with most traffic are shown. {self.left_out} more, with "
            f"{percent(self.left_share)} of traffic, are in the JSON document."
        )


@dataclass(frozen=True, slots=True)
class Label:
    """Products of one query whose label would settle something."""

    gates: str
    query: str
    text: str
    products: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelList:
    """The (query, product) pairs to label, in the order in which they matter."""

    total: int
    shown: int
    rows: tuple[Label, ...]

    @property
    def summary(self) -> str:
        """One sentence about the length of the list and what of it is left out."""
        said = f"{self.total} (query, product) {'pair' if self.total == 1 else 'pairs'}, those that matter most first"
        left = self.total - self.shown
        return f"{said}." if not left else f"{said}; {left} more are in the JSON document."


def shown(text: str) -> str:
    """A text from outside as a report shows it: whole up to `TEXT_LIMIT` characters, controls as their pictures."""
    cut = text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]}… ({len(text) - TEXT_LIMIT:,} more characters)"
    return cut.translate(_CONTROL)


def percent(share: float | None, digits: int = 1) -> str:
    """A share for people; a dash where it is unknown."""
    return "–" if share is None else f"{share:.{digits}%}"


def number(value: float | None) -> str:
    """A figure for people; a dash where there is none."""
    return "–" if value is None else f"{value:.4g}"


def changed_list(document: Document, key: str, limit: int) -> ChangedList:
    """The document's `losses` or `gains`."""
    entries = document[key]
    total = math.fsum(row["weight"] for row in document["queries"])
    least = document["holdout"]["good"]["grade"]
    chosen = tuple(_changed(place, entry, total, least) for place, entry in enumerate(entries[:limit], start=1))
    return ChangedList(len(entries), _share(entries, total), chosen, _share(entries[limit:], total))


def _share(entries: Sequence[Mapping[str, Any]], total: float) -> float | None:
    return math.fsum(entry["weight"] for entry in entries) / total if total > 0 else None


def _changed(place: int, entry: Mapping[str, Any], total: float, least: int) -> Changed:
    about = [entry["lang"], entry["class"], *entry["groups"], *(["pinned"] if entry["pinned"] else [])]
    return Changed(
        number=place,
        query=shown(entry["query"]),
        family=shown(entry["family"]),
        text=shown(entry["text"]),
        about=tuple(shown(word) for word in about),
        before=entry["ndcg"][0],
        after=entry["ndcg"][1],
        share=_share([entry], total),
        rows=_rows(entry["incumbent"], entry["candidate"], least),
    )


def _rows(
    before: Sequence[Sequence[Any]], after: Sequence[Sequence[Any]], least: int
) -> tuple[tuple[Product | None, Product | None], ...]:
    was = {name: rank for rank, (name, _) in enumerate(before)}
    now = {name: rank for rank, (name, _) in enumerate(after)}
    left = [
        _product(name, grade, least, _moved(rank, now.get(name), "gone")) for rank, (name, grade) in _ranked(before)
    ]
    right = [_product(name, grade, least, _moved(was.get(name), rank, "new")) for rank, (name, grade) in _ranked(after)]
    length = max(len(left), len(right))
    return tuple(zip(_filled(left, length), _filled(right, length), strict=True))


def _ranked(top: Sequence[Sequence[Any]]) -> list[tuple[int, tuple[str, int | None]]]:
    return [(rank, (name, grade)) for rank, (name, grade) in enumerate(top)]


def _filled(products: list[Product], length: int) -> list[Product | None]:
    return [*products, *([None] * (length - len(products)))]


def _product(name: str, grade: int | None, least: int, moved: str) -> Product:
    return Product(shown(name), grade, grade is not None and grade >= least, moved)


def _moved(was: int | None, now: int | None, missing: str) -> str:
    """How a product moved from the incumbent's list to the candidate's."""
    if was is None or now is None:
        return missing
    if was == now:
        return "same"
    return f"up {was - now}" if now < was else f"down {now - was}"


def label_list(document: Document) -> LabelList:
    """Every pair that a settlement names, once, with the gates that it would settle."""
    gates: dict[tuple[str, str], list[str]] = {}
    for one in document["settlements"]:
        for query, product in one["pairs"]:
            said = gates.setdefault((query, product), [])
            if one["gate"] not in said:
                said.append(one["gate"])
    texts = {row["id"]: row["text"] for row in document["queries"]}
    rows: dict[tuple[str, str], list[str]] = {}
    for (query, product), names in list(gates.items())[:PAIRS_SHOWN]:
        rows.setdefault((query, ", ".join(names)), []).append(shown(product))
    return LabelList(
        len(gates),
        min(len(gates), PAIRS_SHOWN),
        tuple(
            Label(names, shown(query), shown(texts.get(query, "")), tuple(products))
            for (query, names), products in rows.items()
        ),
    )


def provenance(document: Document) -> list[tuple[str, str]]:
    """What was compared, on what, and with which settings."""
    holdout, question, runs = document["holdout"], document["question"], document["runs"]
    ndcg = "nDCG above 0" if question["mustBeBetter"] else f"nDCG at least −{question['ndcgMargin']:g}"
    repeat = runs["repeat"]
    rows = [
        ("Candidate", f"{runs['candidate']['name']} {runs['candidate']['digest']}"),
        ("Incumbent", f"{runs['incumbent']['name']} {runs['incumbent']['digest']}"),
        ("Incumbent again (A/A)", "not evaluated twice" if repeat is None else repeat["digest"]),
        ("Holdout", f"{holdout['name']} {holdout['version']} {holdout['digest']}"),
        *((f"Holdout's {name}", digest) for name, digest in sorted(holdout["sha256"].items())),
        ("Catalogue", f"{holdout['catalogue']['uri']} {holdout['catalogue']['sha256']}"),
        ("Good", "at least min({wanted}, R) of the top {top} graded {grade} or more".format(**holdout["good"])),
        ("Change", f"{question['change']}: loss at most {percent(question['lossMargin'])}, {ndcg}"),
        ("Level", f"{question['alpha']:g}, one-sided, after {question['recentAttempts']} recent attempts"),
        ("Attempts on these families", str(question["totalAttempts"])),
        *(("Lost evidence", f"{lost}: counted as if every family had been asked") for lost in question["lostAttempts"]),
        ("Promoted queries held to (A′)", "none" if question["anchors"] is None else str(question["anchors"])),
        ("Seed, resamples", f"{question['seed']}, {question['resamples']}"),
        *((f"Digest of {one['name']}", _digest(one)) for one in document["hashes"]),
    ]
    return [(shown(name), shown(value)) for name, value in rows]


def _digest(one: Mapping[str, str]) -> str:
    return one["seen"] if one["seen"] == one["wanted"] else f"seen {one['seen']}, wanted {one['wanted']}"


def known_failures(document: Document) -> str:
    """One sentence about the `failures` split, which is reported only."""
    failures = document["knownFailures"]
    if not failures["families"]:
        return "The holdout has no family in split failures that the incumbent fails."
    low, high = failures["interval"]
    return (
        f"{failures['fixed']} of {failures['families']} families that were selected for failing are Good now "
        f"(95 % interval {low:.0%} to {high:.0%}). They count for no gate: chosen for failing, they improve by chance."
    )
