"""Evaluations resampled from the real models of the fixtures' ladder, with a known share of true losses put in.

Families are drawn with replacement from the traffic of the fixtures' holdout, with what two real models show for them:
the correlation between the queries of a family, the noise and the gains are real. Losses are real too: a family that is
to be lost gets the lists of a worse model or of the lexical legs alone, whichever does lose it.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from multiprocessing import get_context
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from searchops_sandbox.fixtures import ladder
from searchops_sandbox.fixtures.check import GATED, LEXICAL
from searchops_sandbox.fixtures.evaluation import Shop, evaluate
from searchops_workers.digests import bytes_digest
from searchops_workers.holdout.calibration import TRIALS_A_HOLDOUT, Tally, outcomes_of
from searchops_workers.holdout.decide import decide_compared
from searchops_workers.holdout.hard_rules import gate_repeat
from searchops_workers.holdout.inputs import SEED, Change, GateInput, Rules
from searchops_workers.holdout.outcomes import by_family, compare
from searchops_workers.holdout.records import Split
from searchops_workers.holdout.runs import Ranking, Run, read_run, write_run
from searchops_workers.holdout.worlds import RESAMPLES, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from searchops_workers.holdout.outcomes import QueryOutcome
    from searchops_workers.holdout.verdicts import Outcome

CACHE: Final = Path(__file__).resolve().parents[2] / "build" / "calibration"
WORSE: Final = ("r4", LEXICAL)
"""Whose lists a lost family gets: the first that loses it."""
LOSSES: Final = (0.0, 0.02, 0.035, 0.05, 0.07)
SIZES: Final = (210, 500)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two real models, of which the second is asked about."""

    incumbent: str
    candidate: str
    change: Change


PAIRS: Final = (
    Pair("r1", "r2", Change.MODEL),
    Pair("r1", "r3", Change.MODEL),
)


def ladder_runs(cache: Path = CACHE) -> dict[str, Run]:
    """What each model of the ladder shows for the fixtures' holdout, kept until holdout, profile or models change."""
    shop = Shop.committed()
    digests = ladder.write_ladder(cache / "ladder", GATED)
    runs: dict[str, Run] = {}
    for name in (LEXICAL, *GATED):
        digest = digests.get(name, "")
        key = bytes_digest(f"{shop.holdout.digest} {shop.profile.model_dump_json()} {digest}".encode())[-16:]
        path = cache / "runs" / f"{name}-{key}.run"
        if not path.is_file():
            checkpoint = cache / "ladder" / name if digest else None
            path.parent.mkdir(parents=True, exist_ok=True)
            write_run(path, _without_scores(evaluate(shop, name, checkpoint, digest, cache / "embeddings")))
        runs[name] = read_run(path, name)
    return runs


def _without_scores(run: Run) -> Run:
    """The lists alone: fused scores that are equal may differ in their last bit, and a run file refuses that."""
    return Run(run.name, {query: Ranking(found.products, found.legs) for query, found in run.rankings.items()})


@dataclass(frozen=True, slots=True)
class Family:
    """A family with what both models show, and what a worse run shows in the candidate's place, if one loses it."""

    shown: tuple[QueryOutcome, ...]
    worse: tuple[QueryOutcome, ...]
    worse_run: str

    @property
    def good(self) -> bool:
        """Whether it counts for gate A."""
        return any(one.counted and one.incumbent.good for one in self.shown)

    @property
    def lost(self) -> bool:
        """Whether the candidate loses it."""
        return any(one.lost.observed for one in self.shown)

    @property
    def losable(self) -> bool:
        """Whether a worse run loses it, and the candidate does not."""
        return not self.lost and bool(self.worse)


class Resampling:
    """Evaluations drawn from one pair of models.

    Args:
        pair: the models.
        runs: of the ladder.
        shop: whose holdout the runs are of.
    """

    def __init__(self, pair: Pair, runs: dict[str, Run], shop: Shop) -> None:
        self._holdout = shop.holdout
        self._runs = runs
        self._pair = pair
        shown, *worse = (
            by_family(
                one
                for one in compare(shop.holdout, runs[pair.incumbent], runs[name])
                if one.query.split is Split.TRAFFIC
            )
            for name in (pair.candidate, *WORSE)
        )
        self.families = tuple(
            Family(members, *_first_that_loses([(each[family], name) for each, name in zip(worse, WORSE, strict=True)]))
            for family, members in shown.items()
        )
        self.good = sum(family.good for family in self.families)
        self.base = sum(family.lost for family in self.families) / self.good

    def trial(self, good: int, loss: float, generator: np.random.Generator) -> Trial:
        """Families drawn with replacement, of which a share of the Good ones is truly lost.

        Args:
            good: Good families that are to be expected.
            loss: share of them that is lost, at least `base`.
            generator: of the draw.
        """
        risk = max(0.0, loss - self.base) * self.good / sum(family.losable for family in self.families)
        if risk > 1:
            raise ValueError(f"loss: seen {loss:g}; the worse runs of the ladder lose less; ask for less")
        count = round(good * len(self.families) / self.good)
        chosen = generator.integers(0, len(self.families), count)
        unlucky = generator.random(count) < risk
        outcomes: list[QueryOutcome] = []
        for copy, (index, hit) in enumerate(zip(chosen.tolist(), unlucky.tolist(), strict=True)):
            family = self.families[index]
            for one in family.worse if hit and family.losable else family.shown:
                row = one.query.model_copy(
                    update={"id": f"{one.query.id}.{copy}", "family": f"{one.query.family}.{copy}", "pinned": False}
                )
                outcomes.append(replace(one, query=row))
        return self._question(outcomes, chosen.tolist(), unlucky.tolist(), seed=int(generator.integers(2**32)))

    def _question(
        self, outcomes: list[QueryOutcome], chosen: Sequence[int], unlucky: Sequence[bool], seed: int
    ) -> Trial:
        before, after = self._runs[self._pair.incumbent], self._runs[self._pair.candidate]
        left, right, labels = {}, {}, {}
        for one in outcomes:
            original, _, copy = one.query.id.rpartition(".")
            family = self.families[chosen[int(copy)]]
            source = self._runs[family.worse_run] if unlucky[int(copy)] and family.losable else after
            left[one.query.id] = before.rankings[original]
            right[one.query.id] = Ranking(source.rankings[original].products, after.rankings[original].legs)
            labels[one.query.id] = self._holdout.labels_of(original)
        holdout = replace(self._holdout, queries=tuple(one.query for one in outcomes), labels=labels)
        question = GateInput(
            holdout,
            Run("incumbent", left),
            Run("candidate", right),
            Rules.of(self._pair.change),
            seed=seed,
            resamples=RESAMPLES,
        )
        return Trial(question, tuple(outcomes))


def _first_that_loses(found: Sequence[tuple[tuple[QueryOutcome, ...], str]]) -> tuple[tuple[QueryOutcome, ...], str]:
    for members, name in found:
        if any(one.lost.observed for one in members):
            return members, name
    return (), ""


@lru_cache(maxsize=4)
def resampling(pair: Pair) -> Resampling:
    """The resampling of a pair, made once a process; the runs must be in the cache."""
    return Resampling(pair, ladder_runs(), Shop.committed())


def resampled(pair: Pair, good: int, loss: float, trials: int, seed: int) -> Tally:
    """Verdicts about evaluations drawn from a pair."""
    source = resampling(pair)
    generator = np.random.Generator(np.random.PCG64(seed))
    counts: Counter[tuple[str, Outcome]] = Counter()
    for _ in range(trials):
        trial = source.trial(good, loss, generator)
        verdict = decide_compared(trial.question, trial.outcomes, gate_repeat(trial.question))
        counts.update(outcomes_of(verdict, trial.question).items())
    return Tally(trials, counts)


def promise(pair: Pair, good: int, loss: float) -> str:
    """Which promise a point is counted to: ``pass`` at a true loss of δ, ``regressed`` for models that are equal."""
    if good != SIZES[-1]:
        return ""
    if loss == Rules.of(pair.change).loss_margin:
        return "pass"
    return "regressed" if loss == 0.0 else ""


def measured(trials: int, processes: int) -> Iterator[tuple[Pair, int, float, Tally]]:
    """Every pair, size and true loss with its tally; a loss below what the pair loses by itself is that of the pair.

    Args:
        trials: of a promise, over all points that are counted to it; any other point has an eighth.
        processes: at work at one time.
    """
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        waiting = []
        for pair in PAIRS:
            base = resampling(pair).base
            for good in SIZES:
                for loss in (max(loss, base) for loss in LOSSES):
                    kind = promise(pair, good, loss)
                    wanted = max(1, trials // {"pass": len(PAIRS), "regressed": 1}.get(kind, 8))
                    parts = [
                        pool.submit(
                            resampled, pair, good, loss, min(TRIALS_A_HOLDOUT, wanted - start), SEED + start + good
                        )
                        for start in range(0, wanted, TRIALS_A_HOLDOUT)
                    ]
                    waiting.append((pair, good, loss, parts))
        for pair, good, loss, parts in waiting:
            yield pair, good, loss, reduce(add, (part.result() for part in parts))
