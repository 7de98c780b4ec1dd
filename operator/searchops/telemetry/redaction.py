"""Takes secrets out of what is about to be written: by the name of the field, by shape, and by exact value."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"
MAX_PROTECTED = 50_000
SHORTEST_SECRET = 8
MAX_DEPTH = 8

_SENSITIVE_NAME = re.compile(
    r"(api[-_]?key|token|secret|passw(or)?d|authorization|credential|private[-_]?key|jwt|cookie)s?$", re.IGNORECASE
)
_HARMLESS_NAME = re.compile(r"(retry|approve|continue)[-_]?token$", re.IGNORECASE)
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), REDACTED),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}"), rf"\1 {REDACTED}"),
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^/@\s:]+:[^/@\s]+@"), rf"\1{REDACTED}@"),
    (
        re.compile(
            r"(?i)(['\"]?(?:alt|admin|read[-_]?only)?[-_]?(?:api[-_]?key|access[-_]?token|token|password|client[-_]?secret"
            r"|secret[-_]?key)['\"]?\s*[:=]\s*['\"]?)(?!\[redacted\])[^\s'\",;&}\])]{4,}"
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), REDACTED),
)


class Redactor:
    """Redacts texts and structures. Secrets that were read are told to `protect`, so that they are found by value."""

    def __init__(self) -> None:
        self._protected: OrderedDict[str, None] = OrderedDict()
        self._pattern: re.Pattern[str] | None = None

    def __repr__(self) -> str:
        return f"Redactor({len(self._protected)} protected values)"

    def protect(self, *secrets: str) -> None:
        """Never let these exact values out again; values shorter than 8 characters are left to the other rules."""
        for secret in secrets:
            if len(secret) >= SHORTEST_SECRET:
                self._protected[secret] = None
                self._protected.move_to_end(secret)
                self._pattern = None
        while len(self._protected) > MAX_PROTECTED:
            self._protected.popitem(last=False)

    def text(self, text: str) -> str:
        """The text without secrets."""
        if self._protected:
            if self._pattern is None:
                longest_first = sorted(self._protected, key=len, reverse=True)
                self._pattern = re.compile("|".join(map(re.escape, longest_first)))
            text = self._pattern.sub(REDACTED, text)
        for shape, replacement in _SHAPES:
            text = shape.sub(replacement, text)
        return text

    def value(self, value: Any, name: str = "", depth: int = 0) -> Any:
        """The value without secrets; what is no plain data becomes its repr first."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if name and _SENSITIVE_NAME.search(name) and not _HARMLESS_NAME.search(name):
            return REDACTED
        if isinstance(value, str):
            return self.text(value)
        if depth >= MAX_DEPTH:
            return "…"
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(inner, str(key), depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(inner, name, depth + 1) for inner in value]
        if isinstance(value, bytes | bytearray):
            return f"<{len(value)} bytes>"
        return self.text(repr(value))
