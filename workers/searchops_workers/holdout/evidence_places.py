"""Where the evidence of a gate Job lies: one document a holdout, found again by the URI of the first."""

from __future__ import annotations

from searchops_workers.engines.storage import read_if_there

_EXTENSION = ".json"


def place_of(uri: str, name: str, number: int) -> str:
    """The URI of one holdout's evidence.

    Args:
        uri: of the Job's first holdout.
        name: of the holdout in the spec.
        number: its place in the spec, from 0.
    """
    return uri if number == 0 else f"{uri.removesuffix(_EXTENSION)}-{name}{_EXTENSION}"


def kept_on(uri: str, name: str) -> list[bytes]:
    """The documents of one Job that may speak of a holdout, whatever its place in the spec was by then.

    The first holdout's own is among them: the caller passes over what speaks of another one.

    Raises:
        BuildError: stage RETRY, where the store does not answer.
    """
    read = (read_if_there(place) for place in places_of(uri, name))
    return [content for content in read if content is not None]


def places_of(uri: str, name: str) -> tuple[str, str]:
    """Where one Job's evidence on a holdout may be: the place of a first holdout, and that of any other."""
    return place_of(uri, name, 0), place_of(uri, name, 1)
