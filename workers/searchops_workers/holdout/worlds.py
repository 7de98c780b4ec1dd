"""Worlds in which the truth about a candidate is known, for the calibration of the gate.

A world is a whole holdout with an incumbent, of which only the candidate is left open: families of one to five queries
in several languages, groups and classes, codes with one right product and wishes with four, products nobody has judged,
and what earlier revisions had right. A *trial* draws a candidate for it whose true losses, gains and noise are those of
the `Truth`, and asks the gate in full.

Per query there are few lists to choose from, so that each can be compared with the incumbent's once and used in many
trials: a trial costs what the gates cost, and not what reading lists costs. Products have the same names in every query
for the same reason; labels are each query's own.

What is noise: a family varies with the probability `VARIATION`, up or down with probabilities that make the mean
difference of nDCG zero in each state, and its queries mostly vary together. No query of a family that is not truly lost
is lost by noise: an equal model loses nothing, by definition.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from searchops_workers.holdout.decide import decide_compared
from searchops_workers.holdout.format import Holdout, Labels
from searchops_workers.holdout.hard_rules import gate_repeat
from searchops_workers.holdout.inputs import Anchor, Change, GateInput, HashCheck, Rules, VectorReport
from searchops_workers.holdout.metrics import ndcg
from searchops_workers.holdout.multiplicity import Wear
from searchops_workers.holdout.outcomes import QueryOutcome, compare_query
from searchops_workers.holdout.records import CatalogueRef, Manifest, QueryClass, QueryRow, Split
from searchops_workers.holdout.runs import Ranking, Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from searchops_workers.holdout.verdicts import GateResult, Verdict

GOOD_SHARE: Final = 0.7
"""Share of the traffic's families that are Good under the incumbent."""
VARIATION: Final = 0.33
"""Share of families whose lists change for no reason; makes a standard deviation of about 0.15, as measured."""
TOGETHER: Final = 0.7
"""How often a further query of a family does what the first does."""
GOOD_TOGETHER: Final = 0.85
"""How often a further query of a Good family is Good."""
MASKS: Final = 48
"""So many sets of unjudged products a kind of query are drawn for a world, so that each is compared once."""
QUERIES: Final = {1: 0.6, 2: 0.25, 3: 0.1, 5: 0.05}
LANGUAGES: Final = {"en": 0.6, "de": 0.35, "fi": 0.05}
CLASSES: Final = {
    QueryClass.CODE: 0.15,
    QueryClass.SPEC: 0.25,
    QueryClass.TYPO: 0.15,
    QueryClass.INTENT: 0.3,
    QueryClass.BROAD: 0.15,
}
GROUPS: Final = ("compounds", "numbers", "synonyms", "typos", "units", "words")
RESAMPLES: Final = 1000
"""Draws of gate B's bootstrap in a trial; the benchmark shows that 10,000 give the same rates."""
_GAINS: Final = {"0": 0.0, "1": 1.0, "2": 3.0, "3": 7.0}
_PRODUCTS: Final = tuple(f"p{place}" for place in range(14))
_NO_DIGEST: Final = "sha256:" + "0" * 64


class List(IntEnum):
    """What the candidate may show for a query."""

    SAME = 0
    UP = 1
    DOWN = 2
    LOST = 3
    GAINED = 4
    SLIP = 5
    SILENT = 6


@dataclass(frozen=True, slots=True)
class _Kind:
    """Grades of the products, and by what the candidate does the places they take; 0 is what the incumbent shows."""

    grades: tuple[int, ...]
    good: bool
    lists: Mapping[List, tuple[int, ...]]

    def ndcg(self, shown: List) -> float:
        """nDCG@10 of a list under complete labels."""
        gains = [_GAINS[str(grade)] for grade in self.grades]
        return ndcg([gains[place] for place in self.lists.get(shown, self.lists[List.SAME])], gains, 10)


_WISH = (3, 3, 2, 2, 1, *(0,) * 9)
_CODE = (3, *(0,) * 13)
_KINDS: Final = (
    _Kind(
        _WISH,
        good=True,
        lists={
            List.SAME: (5, 0, 6, 2, 1, 7, 8, 9, 3, 4),
            List.UP: (0, 1, 2, 3, 5, 6, 7, 8, 9, 4),
            List.DOWN: (5, 6, 2, 3, 0, 7, 8, 9, 10, 11),
            List.LOST: (5, 6, 7, 8, 2, 9, 0, 10, 11, 3),
        },
    ),
    _Kind(
        _WISH,
        good=False,
        lists={
            List.SAME: (5, 2, 6, 7, 8, 0, 1, 9, 3, 4),
            List.UP: (2, 0, 5, 6, 7, 1, 8, 9, 3, 4),
            List.DOWN: (5, 6, 7, 8, 9, 2, 10, 0, 11, 3),
            List.GAINED: (0, 2, 1, 5, 6, 7, 8, 9, 3, 12),
            List.SILENT: (),
        },
    ),
    _Kind(
        _CODE,
        good=True,
        lists={
            List.SAME: (0, 5, 6, 7, 8, 9, 1, 2, 3, 4),
            List.SLIP: (5, 0, 6, 7, 8, 9, 1, 2, 3, 4),
            List.LOST: (5, 6, 7, 8, 9, 10, 0, 1, 2, 3),
        },
    ),
    _Kind(
        _CODE,
        good=False,
        lists={
            List.SAME: (5, 6, 7, 8, 9, 10, 0, 1, 2, 3),
            List.GAINED: (0, 5, 6, 7, 8, 9, 1, 2, 3, 4),
            List.SILENT: (),
        },
    ),
)
_WISH_GOOD, _WISH_POOR, _CODE_GOOD, _CODE_POOR = range(4)


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of the candidates of a world, and of the holdout that it is asked on.

    Attributes:
        good: families Good under the incumbent.
        loss: share of them that the candidate loses.
        gain: share of the other families that it gets right.
        sag: share of families whose lists get worse with nothing lost.
        slips: share of the Good code families whose right product falls from the first place to the second.
        silenced: share of the families that are not Good for which nothing is found any more.
        pinned_lost: every code is pinned, and this share of the Good ones is lost beyond `loss`.
        local: share lost of the Good families of the smallest language, beyond `loss`.
        eroded: families that earlier promotions lost, as a share of what was ever Good; None: nothing is known of
            earlier promotions, and gate A′ is not asked.
        unjudged: probability that a product was not judged which only the candidate may show.
        unjudged_before: the same of a product that the incumbent shows.
        unjudged_is_zero: what nobody judged counts as irrelevant, which the gate does *not* do: it shows the cost.
        queries: of each family; None draws them from `QUERIES`.
        declared: the holdout says which queries are of one family; else each stands as a family of its own.
        variation: share of families that vary for no reason.
        attempts: earlier candidates on these families within 30 days.
    """

    good: int = 500
    loss: float = 0.0
    gain: float = 0.0
    sag: float = 0.0
    slips: float = 0.0
    silenced: float = 0.0
    pinned_lost: float = 0.0
    local: float = 0.0
    eroded: float | None = None
    unjudged: float = 0.0
    unjudged_before: float = 0.0
    unjudged_is_zero: bool = False
    queries: int | None = None
    declared: bool = True
    variation: float = VARIATION
    attempts: int = 0
    change: Change = Change.MODEL
    resamples: int = RESAMPLES


@dataclass(frozen=True)
class Trial:
    """One candidate: the question about it, and its lists compared already."""

    question: GateInput
    outcomes: tuple[QueryOutcome, ...]


class World:
    """A holdout and an incumbent, and candidates drawn for them.

    Args:
        truth: of the candidates.
        seed: of the holdout; candidates have a generator of their own.
    """

    def __init__(self, truth: Truth, seed: int) -> None:
        self.truth = truth
        self._draw(np.random.Generator(np.random.PCG64(seed)))
        labels = {row.id: _labels(kind, mask, truth) for row, kind, mask in self._cells}
        self.holdout = Holdout(
            _MANIFEST,
            tuple(row for row, _, _ in self._cells),
            MappingProxyType(labels),
            CatalogueRef(uri="memory:", sha256=_NO_DIGEST),
            _NO_DIGEST,
        )
        self.incumbent = Run("incumbent", {row.id: _ranking(kind, List.SAME) for row, kind, _ in self._cells})
        self._compared = [_compared(row, kind, mask, truth) for row, kind, mask in self._cells]

    def _draw(self, generator: np.random.Generator) -> None:
        """Families first, then their queries; a lost, gained or varying family is so as a whole."""
        truth = self.truth
        families = round(truth.good / GOOD_SHARE)
        self._states = np.arange(families) < truth.good
        classes = generator.choice(list(CLASSES), families, p=list(CLASSES.values()))
        languages = generator.choice(list(LANGUAGES), families, p=list(LANGUAGES.values()))
        groups = generator.choice(GROUPS, families)
        sizes = generator.choice(list(QUERIES), families, p=list(QUERIES.values()))
        self._small = languages == list(LANGUAGES)[-1]
        self._code = classes == QueryClass.CODE
        masks = [_masks(kind, truth, generator) for kind in range(len(_KINDS))]
        self._cells: list[tuple[QueryRow, int, int]] = []
        for family in range(families):
            for member in range(truth.queries or int(sizes[family])):
                alike = member == 0 or truth.queries is not None
                good = bool(self._states[family]) and (alike or generator.random() < GOOD_TOGETHER)
                kind = 2 * int(self._code[family]) + int(not good)
                language = str(languages[family]) if alike or generator.random() < TOGETHER else next(iter(LANGUAGES))
                row = _row(truth, family, member, language, str(groups[family]), QueryClass(classes[family]))
                self._cells.append((row, kind, masks[kind][generator.integers(len(masks[kind]))]))
        self._family = np.array([int(row.id[1:].partition("-")[0]) for row, _, _ in self._cells])
        self._kind = np.array([kind for _, kind, _ in self._cells])
        self._first = np.concatenate(([True], self._family[1:] != self._family[:-1]))

    @cached_property
    def _anchors(self) -> tuple[Anchor, ...] | None:
        """What is Good now, and the families that earlier promotions lost."""
        eroded = self.truth.eroded
        if eroded is None:
            return None
        gone = self.truth.good + round(self.truth.good * eroded / (1 - eroded))
        best = [_KINDS[kind - kind % 2].ndcg(List.SAME) for kind in range(len(_KINDS))]
        return tuple(
            Anchor(row.id, best[kind])
            for (row, kind, _), family in zip(self._cells, self._family.tolist(), strict=True)
            if _KINDS[kind].good or self.truth.good <= family < gone
        )

    @cached_property
    def _fixed(self) -> GateInput:
        vectors = VectorReport("candidate", 1000, 0, (384,), 384, 1.0, 1.0)
        return GateInput(
            self.holdout,
            self.incumbent,
            self.incumbent,
            Rules.of(self.truth.change),
            resamples=self.truth.resamples,
            wear=Wear(recent=self.truth.attempts),
            anchored=self._anchors,
            repeat=self.incumbent,
            vectors=vectors,
            incumbent_vectors=replace(vectors, side="incumbent"),
            hashes=(HashCheck("holdout", _NO_DIGEST, _NO_DIGEST),),
        )

    @cached_property
    def _repeat(self) -> GateResult:
        return gate_repeat(self._fixed)

    def trial(self, generator: np.random.Generator) -> Trial:
        """Draw a candidate."""
        shown = self._shown(generator)
        rankings = {
            row.id: _ranking(kind, List(choice)) for (row, kind, _), choice in zip(self._cells, shown, strict=True)
        }
        question = replace(self._fixed, candidate=Run("candidate", rankings), seed=int(generator.integers(2**32)))
        return Trial(question, tuple(row[choice] for row, choice in zip(self._compared, shown, strict=True)))

    def answer(self, trial: Trial) -> Verdict:
        """What the gate says; the same as `decide`, without comparing lists again."""
        return decide_compared(trial.question, trial.outcomes, self._repeat)

    def _shown(self, generator: np.random.Generator) -> NDArray[np.int64]:
        truth, families = self.truth, len(self._states)
        risk = truth.loss + truth.local * self._small + truth.pinned_lost * self._code
        lost = self._states & (generator.random(families) < risk)
        gained = ~self._states & (generator.random(families) < truth.gain)
        silent = ~self._states & ~gained & (generator.random(families) < truth.silenced)
        slips = self._states & ~lost & self._code & (generator.random(families) < truth.slips)
        sags = ~gained & ~silent & (generator.random(families) < truth.sag)
        place = self._family
        alike = self._first | (generator.random(len(place)) < (TOGETHER if truth.declared else 1.0))
        own = generator.random(len(place))
        noise = np.where(alike, generator.random(families)[place], own)
        up, varies = (np.array(part)[self._kind] for part in _noise(truth.variation))
        shown = np.where(noise < up, List.UP, np.where(noise < varies, List.DOWN, List.SAME))
        shown[sags[place] & (self._kind <= _WISH_POOR)] = List.DOWN
        good = (self._kind == _WISH_GOOD) | (self._kind == _CODE_GOOD)
        shown[lost[place] & good] = List.SAME
        shown[lost[place] & good & alike] = List.LOST
        shown[gained[place] & ~good & alike] = List.GAINED
        shown[silent[place] & ~good] = List.SILENT
        shown[slips[place] & good & alike] = List.SLIP
        return shown


@lru_cache(maxsize=16)
def _noise(variation: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """For each kind, below what a uniform number means up, and below what it means any change: mean zero."""
    up, varies = [], []
    for kind in _KINDS:
        if List.UP not in kind.lists:
            up.append(0.0)
            varies.append(0.0)
            continue
        same = kind.ndcg(List.SAME)
        rise, fall = kind.ndcg(List.UP) - same, same - kind.ndcg(List.DOWN)
        up.append(variation * fall / (rise + fall))
        varies.append(variation)
    return tuple(up), tuple(varies)


def _row(truth: Truth, family: int, member: int, language: str, group: str, query_class: QueryClass) -> QueryRow:
    name = f"q{family}-{member}"
    return _QUERY.model_copy(
        update={
            "id": name,
            "family": f"f{family}" if truth.declared else name,
            "lang": language,
            "groups": [group],
            "query_class": query_class,
            "pinned": query_class is QueryClass.CODE and truth.pinned_lost > 0,
        }
    )


def _masks(kind: int, truth: Truth, generator: np.random.Generator) -> list[int]:
    """Sets of products that nobody judged, as bits; each query of the kind has one of them."""
    if not truth.unjudged and not truth.unjudged_before:
        return [0]
    shown = _KINDS[kind].lists[List.SAME]
    risk = [truth.unjudged_before if place in shown else truth.unjudged for place in range(len(_PRODUCTS))]
    hidden = generator.random((MASKS, len(_PRODUCTS))) < risk
    return [sum(1 << place for place in np.flatnonzero(row).tolist()) for row in hidden]


@lru_cache(maxsize=200_000)
def _labels_of(kind: int, mask: int, rest: int | None) -> Labels:
    grades = {
        product: grade
        for place, (product, grade) in enumerate(zip(_PRODUCTS, _KINDS[kind].grades, strict=True))
        if not mask >> place & 1
    }
    return Labels(MappingProxyType(grades), rest)


def _labels(kind: int, mask: int, truth: Truth) -> Labels:
    return _labels_of(kind, mask, 0 if truth.unjudged_is_zero else None)


@lru_cache(maxsize=64)
def _ranking(kind: int, shown: List) -> Ranking:
    lists = _KINDS[kind].lists
    return Ranking(tuple(_PRODUCTS[place] for place in lists.get(shown, lists[List.SAME])))


@lru_cache(maxsize=200_000)
def _pattern(kind: int, mask: int, shown: List, rest: int | None) -> QueryOutcome:
    """A comparison under the name of no query: it depends on labels and lists alone."""
    labels = _labels_of(kind, mask, rest)
    alone = Holdout(
        _MANIFEST, (_QUERY,), {_QUERY.id: labels}, CatalogueRef(uri="memory:", sha256=_NO_DIGEST), _NO_DIGEST
    )
    return compare_query(alone, _QUERY, _ranking(kind, List.SAME), _ranking(kind, shown))


def _compared(row: QueryRow, kind: int, mask: int, truth: Truth) -> list[QueryOutcome]:
    rest = 0 if truth.unjudged_is_zero else None
    lists = _KINDS[kind].lists
    found = {shown: replace(_pattern(kind, mask, shown, rest), query=row) for shown in lists}
    return [found.get(shown, found[List.SAME]) for shown in List]


_QUERY = QueryRow(
    id="q", family="f", text="query", lang="en", query_class=QueryClass.SPEC, split=Split.TRAFFIC, groups=[]
)
_MANIFEST = Manifest(
    name="simulated",
    version="1.0.0",
    sha256={"queries.jsonl": _NO_DIGEST},
    gains=dict(_GAINS),
    licence="none",
    created="2026-11-24T00:00:00Z",
)
