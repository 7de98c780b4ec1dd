"""Which legs a query takes: a query that looks like a code goes lexical-only.

Equal-weight fusion with a dense leg destroys exact-code queries (success@1 .98 → .67 on Icecat titles).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchops_workers.retrieval.codes import codes_apart
from searchops_workers.retrieval.folding import fold
from searchops_workers.retrieval.specifications import GLUED_UNIT, WORD, has_digit, looks_like_code, normalise_numbers

if TYPE_CHECKING:
    from searchops.api.retrieval import CodeRouting

DOMINANT = 0.5


@dataclass(frozen=True, slots=True)
class Route:
    """The legs of a query, and why."""

    lexical_only: bool
    reason: str


def route(text: str, routing: CodeRouting, languages: tuple[str, ...] = (), *, codes_apart_too: bool = True) -> Route:
    """Decide by the query alone; the same query takes the same legs under every model.

    Args:
        text: the query.
        routing: of the tenant's profile.
        languages: of the tenant.
        codes_apart_too: whether the index joins a code typed apart; else its parts are words like others.
    """
    if not routing.enabled:
        return Route(False, "code routing is off")
    words = WORD.findall(normalise_numbers(fold(text, languages, codes=codes_apart_too)))
    if not words:
        return Route(True, "the query has no word")
    codes = [word for word in words if _is_code(word, routing.min_length)]
    for letters, number in codes_apart(text, languages) if codes_apart_too else ():
        if number in codes:  # long enough to be one alone
            codes.remove(number)
        if len(letters + number) >= routing.min_length:
            codes.append(f"{letters} {number}")
            words.remove(number)
    if codes and len(codes) >= len(words) * DOMINANT:
        return Route(True, f"{codes[0]!r} looks like a code")
    return Route(False, "words")


def _is_code(word: str, min_length: int) -> bool:
    if not has_digit(word) or len(word) < min_length:
        return False
    glued = GLUED_UNIT.match(word)
    if glued is not None and len(glued.group(2)) <= 3:
        return False
    return looks_like_code(word)
