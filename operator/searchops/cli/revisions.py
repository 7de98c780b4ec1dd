"""Whether a revision that a person names is one that the command is about: a word mistyped would be a silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Verb = Literal["approve", "rollback"]


def refusal(verb: Verb, model: Mapping[str, Any], word: str) -> str:
    """Why the operator would not heed this word; empty where it does.

    Args:
        verb: approve takes the candidate, also as ``<revision>/<number of the wave>``; rollback the candidate, or the
            active revision while it may be taken back.
        model: the EmbeddingModel.
        word: what the person typed.
    """
    status = model.get("status") or {}
    candidate, active = ((status.get(name) or {}).get("revision") for name in ("candidate", "active"))
    revision, _, wave = word.partition("/")
    known = {candidate} if verb == "approve" else {candidate, active}
    waves = len(((model.get("spec") or {}).get("rollout") or {}).get("waves") or ())
    name = model["metadata"]["name"]
    if revision in known - {None}:
        if not wave or (verb == "approve" and wave.isdecimal() and int(wave) < waves):
            return ""
        steps = f", or {revision}/0 to {revision}/{waves - 1}" if verb == "approve" else ""
        return f"{word!r}: wanted {revision}{steps}; nothing was annotated"
    standing = f"its candidate is {candidate or 'none'}, its active revision {active or 'none'}"
    wanted = "its candidate" if verb == "approve" else "its candidate or its active revision"
    return f"model {name} has no such revision to {verb}: {word!r}; {standing}; wanted {wanted}; nothing was annotated"
