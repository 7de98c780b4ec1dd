"""A tenant that does not parse and is being deleted: what is left of it must be enough to let it go.

An object may be older than a rule. It is then served no more, and says so; but a finalizer that waits for an object to
parse would hold its namespace for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from searchops.api.v1alpha1 import SearchTenant

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT = ("deletionPolicy", "deletionProtection", "undeleteWindow")
NOTHING_DECLARED = {"model": {"name": "unread"}, "fields": [{"name": "title", "type": "text", "role": "Title"}]}


def to_let_go(raw: Mapping[str, Any]) -> SearchTenant | None:
    """The object as far as its deletion needs it; None where it is not being deleted.

    What it says of its end counts where all of that can be read, else its data is retained.

    Raises:
        ValidationError: not even its metadata can be read.
    """
    if not raw["metadata"].get("deletionTimestamp"):
        return None
    spec = raw.get("spec") or {}
    ends = {name: spec[name] for name in KEPT if name in spec}
    for status in (raw.get("status") or {}, {}):
        for kept in (ends, {}):
            try:
                return SearchTenant.model_validate({**raw, "spec": {**NOTHING_DECLARED, **kept}, "status": status})
            except ValidationError:
                continue
    return SearchTenant.model_validate({**raw, "spec": NOTHING_DECLARED, "status": {}})
