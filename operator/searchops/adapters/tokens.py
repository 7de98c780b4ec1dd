"""Signing scoped tokens with a cell's key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jwt

from searchops.runtime.errors import Terminal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.observed import CellRegistration

RIGHTS = frozenset({"r", "rw", "prw"})


class CellKeySigner:
    """HS256 with the cell's apiKey, as Qdrant verifies it."""

    def sign(self, cell: CellRegistration, claims: Mapping[str, Any]) -> str:
        """A token for these claims.

        Raises:
            Terminal: ``access`` is not a list of names with a right each (a token without it, or with a right over the
                whole server in its place, would open every tenant), or the key is too short.
        """
        access = claims.get("access")
        if not isinstance(access, list) or not access or not all(map(_names_one, access)):
            raise Terminal("InvalidSpec", "a token without access claims would have full access: it is never signed")
        if not cell.key_is_strong:
            raise Terminal("CellKeyTooWeak", f"the apiKey of cell {cell.name} is shorter than 32 bytes")
        return jwt.encode(dict(claims), cell.api_key, algorithm="HS256")

    def sign_manage(self, cell: CellRegistration, claims: Mapping[str, Any]) -> str:
        """A token that may manage the whole cell, which only a restore needs: it says so, and when it ends.

        Raises:
            Terminal: the claims are of another kind or have no end, or the key is too short.
        """
        if claims.get("access") != "m" or not isinstance(claims.get("exp"), int):
            raise Terminal(
                "InvalidSpec", "a token that manages a cell has access m and an exp, and is made for nothing else"
            )
        if not cell.key_is_strong:
            raise Terminal("CellKeyTooWeak", f"the apiKey of cell {cell.name} is shorter than 32 bytes")
        return jwt.encode(dict(claims), cell.api_key, algorithm="HS256")


def _names_one(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("collection"), str)
        and bool(entry["collection"])
        and isinstance(entry.get("access"), str)
        and entry["access"] in RIGHTS
    )
