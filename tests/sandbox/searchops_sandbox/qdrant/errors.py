"""Errors of the server's API, with the prefixes and statuses that a real server was seen to use."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class ApiError(Exception):
    """An answer other than success.

    Attributes:
        status: HTTP status.
        message: what the server would say.
        plain: whether the body is plain text instead of the JSON envelope (authentication errors are).
        headers: extra response headers, such as `Retry-After`.
    """

    def __init__(
        self, status: int, message: str, *, plain: bool = False, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.plain = plain
        self.headers = dict(headers or {})


def bad_request(message: str) -> ApiError:
    """400 for a request that the server's rules refuse."""
    return ApiError(400, f"Bad request: {message}")


def wrong_input(message: str) -> ApiError:
    """400 for a value that does not fit the collection."""
    return ApiError(400, f"Wrong input: {message}")


def format_error(message: str) -> ApiError:
    """400 for a body that is not of the expected shape."""
    return ApiError(400, f"Format error in JSON body: {message}")


def invalid(message: str, *, where: str = "JSON body") -> ApiError:
    """422 for a value out of bounds."""
    return ApiError(422, f"Validation error in {where}: [{message}]")


def not_found(message: str) -> ApiError:
    """404."""
    return ApiError(404, f"Not found: {message}")


def no_collection(name: str) -> ApiError:
    """404 for a collection (or alias) that does not exist."""
    return not_found(f"Collection `{name}` doesn't exist!")


def exists(name: str) -> ApiError:
    """409 for a name that is taken by a collection."""
    return ApiError(409, f"Wrong input: Collection `{name}` already exists!")


def forbidden(message: str) -> ApiError:
    """403 for credentials that do not reach this far."""
    return ApiError(403, f"Forbidden: {message}")


def unsupported(what: str) -> ApiError:
    """501: the double does not do this, and says so instead of ignoring it."""
    return ApiError(501, f"Not implemented in the searchops Qdrant double: {what}")


def rate_limited(kind: str, *, needed: int, available: float, per_second: float) -> ApiError:
    """429 with `Retry-After` in whole seconds."""
    wait = max(1, math.ceil((needed - available) / per_second))
    message = (
        f"Rate limiting exceeded: {kind} rate limit exceeded: Operation requires {needed} tokens "
        f"but only {available:.1f} were available. Retry after {wait}s"
    )
    return ApiError(429, message, headers={"Retry-After": str(wait)})


def from_engine(error: BaseException) -> ApiError:
    """Map the engine's plain-text errors to the server's statuses by their message."""
    text = str(error)
    if type(error).__name__ == "PanicException":
        return ApiError(500, f"Service internal error: the engine panicked: {text}")
    if text.startswith("No point with id"):
        return not_found(f"{text} found")
    if isinstance(error, ValueError | TypeError):
        return format_error(text)
    if text.startswith(("Service", "IO ", "Out of", "Internal")):
        return ApiError(500, f"Service internal error: {text}")
    return wrong_input(text)


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """Turn the engine's errors, its panics included, into API errors."""
    try:
        yield
    except ApiError:
        raise
    except Exception as error:
        raise from_engine(error) from error
    except BaseException as error:
        # The binding's PanicException is a BaseException; anything else of that kind is not ours.
        if type(error).__name__ != "PanicException":
            raise
        raise from_engine(error) from error
