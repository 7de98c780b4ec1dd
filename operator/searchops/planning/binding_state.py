"""What a tenant's collection says of itself, and what one step of its binding is made from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from searchops.api.meta import format_time, parse_duration, parse_time
from searchops.api.retrieval import Binding
from searchops.api.v1alpha1.search_tenant_status import (
    BindingStatus,
    PinnedStatus,
    PlanStatus,
    PreviousStatus,
    RebuildStatus,
)
from searchops.planning.clocks import seconds_left
from searchops.planning.names import (
    KEY_BINDING,
    KEY_PENDING,
    KEY_PREVIOUS,
    KEY_RELEASED_AT,
    alias_of,
    generation_of,
)
from searchops.planning.schema import side_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from searchops.api.observed import CellState, CollectionState
    from searchops.api.retrieval import RetrievalProfile
    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.planning.conditions import Finding
    from searchops.planning.schema import Owner
    from searchops.planning.tenant_facts import TenantAction, TenantFacts, TenantSettings


@dataclass(frozen=True, slots=True)
class BindingState:
    """The three values of a collection's metadata."""

    binding: Binding
    pending: Binding | None
    previous: Binding | None

    def to_status(self) -> BindingStatus:
        """As the status shows it."""
        binding = self.binding
        return BindingStatus(
            model=binding.model,
            revision=binding.revision,
            encoder=binding.encoder,
            vector=binding.vector,
            analyser=binding.analyser_id,
            profile=binding.profile.name,
            since=format_time(parse_time(binding.since)),
        )


@dataclass(frozen=True, slots=True)
class BindingStep:
    """Actions of this pass, what to say (nothing: the next pass reads what the actions made and says it), and when.

    Attributes:
        pinned: where the trial of the tenant's pinned queries stands; None where none is under way.
    """

    actions: tuple[TenantAction, ...]
    findings: tuple[Finding, ...]
    rebuild: RebuildStatus | None = None
    previous: PreviousStatus | None = None
    requeue_after: float | None = None
    plan: PlanStatus | None = None
    pinned: PinnedStatus | None = None


@dataclass(frozen=True, slots=True)
class BindingContext:
    """Everything that one step is decided from."""

    tenant: SearchTenant
    facts: TenantFacts
    settings: TenantSettings
    owner: Owner
    cell: CellState
    current: CollectionState
    state: BindingState
    profile: RetrievalProfile
    now: datetime

    @property
    def generation(self) -> int:
        """Number of the live generation."""
        return generation_of(self.owner.alias, self.current.name) or 1

    @property
    def side(self) -> str:
        """Side of the live generation."""
        return side_of(self.owner.alias, self.generation)

    @property
    def other_side(self) -> str:
        """The side on which another generation would stand."""
        return side_of(self.owner.alias, self.generation + 1)

    @property
    def window_end(self) -> datetime:
        """Until when the previous side is kept."""
        model = self.facts.model
        window = parse_duration(model.spec.rollout.rollback_window) if model is not None else timedelta(hours=72)
        return parse_time(self.state.binding.since) + window

    @property
    def settling(self) -> float:
        """Seconds for which a gateway may still write by what the metadata named before; 0 when none does."""
        return self._left(KEY_RELEASED_AT, self.current.metadata.get(KEY_RELEASED_AT, ""))

    @property
    def unread(self) -> float:
        """Seconds for which a gateway may not have read `pending` yet; 0 when every one writes both sides."""
        pending = self.state.pending
        return 0.0 if pending is None else self._left(KEY_PENDING, pending.since)

    @property
    def window_left(self) -> float:
        """Seconds for which the previous side is still kept, whichever of two clocks says when its window began."""
        return (self.window_end + self.settings.clock_skew - self.now).total_seconds()

    def _left(self, key: str, written: str) -> float:
        settings, seen = self.settings, self.facts.seen_for.get(key)
        return seconds_left(written, settings.binding_settle, self.now, skew=settings.clock_skew, seen_for=seen)

    def lacking(self, item: Binding) -> int | None:
        """Exact number of live points that this binding's side lacks; None is unknown."""
        return self.facts.lacking.get(count_key(item, self.side))

    def previous_status(self) -> PreviousStatus | None:
        """What a rollback would go back to, as the status shows it."""
        previous = self.state.previous
        if previous is None:
            return None
        return PreviousStatus(
            revision=previous.revision,
            vector=previous.vector,
            collection=previous.side,
            until=format_time(self.window_end),
            lacking=self.lacking(previous),
        )

    def record(self, values: Mapping[str, str | None]) -> tuple[tuple[str, str | None], ...]:
        """Metadata keys of a patch that may un-name a side: from now on nothing unnamed is removed for a while."""
        return tuple(sorted({**values, KEY_RELEASED_AT: format_time(self.now)}.items()))


def count_key(item: Binding, own_side: str) -> tuple[str, str]:
    """Under which key of `TenantFacts.lacking` a binding's side is counted."""
    return item.side or own_side, item.vector or ""


def read_bindings(collection: CollectionState) -> BindingState | None:
    """The three values, or None where one of them cannot be read (none is then ever overwritten).

    Whatever others wrote into them: what is given back has times that can be counted with and texts that a status may
    hold.
    """
    try:
        found = [_read(collection, key) for key in (KEY_BINDING, KEY_PENDING, KEY_PREVIOUS)]
    except ValueError:  # pydantic's is one
        return None
    binding, pending, previous = found
    return BindingState(binding, pending, previous) if binding is not None else None


def unreadable(collection: CollectionState) -> tuple[str, ...]:
    """Which of the three keys cannot be read, for people."""
    found = []
    for key in (KEY_BINDING, KEY_PENDING, KEY_PREVIOUS):
        try:
            _read(collection, key)
        except ValueError:
            found.append(key)
    return tuple(found)


def _read(collection: CollectionState, key: str) -> Binding | None:
    """One value.

    Raises:
        ValueError: it is no binding of this collection, or nothing that can be shown or counted with.
    """
    text, alias = collection.metadata.get(key), alias_of(collection.name)
    if text is None:
        return None
    found = Binding.from_metadata(text)
    parse_time(found.since)
    if alias is not None and found.side not in (None, side_of(alias, 0), side_of(alias, 1)):
        raise ValueError(f"{key} of {collection.name} names the side {found.side!r} of another")
    BindingState(found, None, None).to_status()
    PreviousStatus(collection=found.side)
    return found
