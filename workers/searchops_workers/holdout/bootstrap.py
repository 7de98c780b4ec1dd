"""Seeded paired percentile bootstrap over families."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from searchops_workers.holdout.intervals import ALPHA, Bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 10_000
_DRAWS_AT_ONCE = 2_000_000


def family_bootstrap(
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    alpha: float = ALPHA,
) -> tuple[Bounds, ...]:
    """One-sided percentile bounds of the mean difference per query, resampling whole families.

    Queries of one family are not independent, so families are drawn with replacement and the mean is taken over all
    queries drawn (a ratio of sums). Several columns are resampled with the same draws, so that a worst and a best case
    stay in order. Where all differences are zero the answer is [0, 0], not an undefined one.

    Args:
        sums: families × columns, sum of the differences of the family's queries.
        counts: queries of each family, ≥ 1.
        seed: equal seeds give equal bounds.
        resamples: number of draws.
        alpha: level of each bound.

    Returns:
        for each column the alpha and 1 − alpha quantiles.

    Raises:
        ValueError: there is no family.
    """
    families, columns = sums.shape
    if families == 0:
        raise ValueError("seen no family; wanted at least one; a bootstrap has nothing to draw from")
    across = np.ascontiguousarray(sums.T)
    # Where everything is judged the worst and the best case are the observed one: an equal column is drawn once.
    first = [next(n for n in range(columns) if np.array_equal(across[n], across[column])) for column in range(columns)]
    alike = int(counts[0]) if (counts == counts[0]).all() else 0
    generator = np.random.Generator(np.random.PCG64(seed))
    means = np.empty((resamples, columns))
    step = max(1, _DRAWS_AT_ONCE // families)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = generator.integers(0, families, size=(size, families), dtype=np.int32)
        total = alike * families if alike else np.take(counts, drawn).sum(axis=1)
        for column in range(columns):
            if first[column] < column:
                means[start : start + size, column] = means[start : start + size, first[column]]
            else:
                means[start : start + size, column] = np.take(across[column], drawn).sum(axis=1) / total
    quantiles = np.quantile(means, [alpha, 1 - alpha], axis=0)
    return tuple(Bounds(float(low), float(high)) for low, high in quantiles.T)
