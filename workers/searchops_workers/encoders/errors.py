"""What can go wrong between a text and its vector, typed so that callers can choose what to do."""

from __future__ import annotations


class EncoderError(RuntimeError):
    """The texts were not encoded; nothing about them is known."""


class EncoderUnavailable(EncoderError):  # noqa: N818 - named for what is the case, as callers read it
    """The backend does not answer, answers too late, or fails inside: another server or a later try may work."""


class ModelNotLoaded(EncoderError):  # noqa: N818 - named for what is the case, as callers read it
    """The backend answers, but does not serve the model that was asked for."""


class EncoderRefused(EncoderError):  # noqa: N818 - named for what is the case, as callers read it
    """The backend refused the request itself; the same request fails everywhere."""


class BadVectors(EncoderError):  # noqa: N818 - named for what is the case, as callers read it
    """The answer must not be stored or searched with: not finite, not of unit norm, or of another shape than wanted."""
