"""Signing scoped tokens with a cell's key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jwt

from searchops.runtime.errors import Terminal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.observed import CellRegistration


class CellKeySigner:
    """HS256 with the cell's apiKey, as Qdrant verifies it."""

    def sign(self, cell: CellRegistration, claims: Mapping[str, Any]) -> str:
        """A token for these claims.

        Raises:
            Terminal: the claims have no ``access`` (such a token would have full access), or the key is too short.
        """
        if not isinstance(claims.get("access"), list) or not claims["access"]:
            raise Terminal("InvalidSpec", "a token without access claims would have full access: it is never signed")
        if not cell.key_is_strong:
            raise Terminal("CellKeyTooWeak", f"the apiKey of cell {cell.name} is shorter than 32 bytes")
        return jwt.encode(dict(claims), cell.api_key, algorithm="HS256")
