"""How operator and workers open the artifact store alike: which schemes, how patiently, what of an error is said.

No client library is imported here. Credentials and endpoints come from the environment that the stores' own packages
read (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ``GOOGLE_APPLICATION_CREDENTIALS``, a ServiceAccount's identity).
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import urlsplit

PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
"""The package that serves a scheme; the extras ``operator`` and ``worker`` bring both."""
SCHEMES = ("s3", "gs", "file")
_OWN_MEMORY = "memory"
"""One process's own store, for tests: no admitted object and no setting can name it."""
_CHAIN = "::"
_MOST_SAID = 300
_SHORTEST_SECRET = 8
_SECRET_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
)
_HIDDEN = "[redacted]"
_SHAPES = (
    (re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^/@\s\"']+@"), rf"\1{_HIDDEN}@"),
    (re.compile(r"\?[^\s\"'<>]*=[^\s\"'<>]*"), f"?{_HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|aws4-hmac-sha256)\s+[^\s\"'<>]+([^\n]*)"), rf"\1 {_HIDDEN}"),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{8,}"), _HIDDEN),
    (re.compile(r"\bya29\.[A-Za-z0-9._-]+"), _HIDDEN),
)


def problem_with(uri: str) -> str | None:
    """Why a URI is not opened at all, or None; a chain of file systems could reach what no policy has allowed."""
    scheme = urlsplit(uri).scheme
    if scheme not in (*SCHEMES, _OWN_MEMORY) or f"{scheme}://" != uri[: len(scheme) + 3] or _CHAIN in uri:
        return f"{without_secrets(uri)}: wanted a URI that begins with s3://, gs:// or file:// and has no {_CHAIN}"
    return None


def options(uri: str, *, connect: float, read: float, attempts: int) -> dict[str, Any]:
    """What fsspec is told beside the URI: bounded waits in seconds, and no listing remembered from before a write."""
    match urlsplit(uri).scheme:
        case "s3":
            bounds = {"connect_timeout": connect, "read_timeout": read, "retries": {"total_max_attempts": attempts}}
            return {"use_listings_cache": False, "config_kwargs": bounds}
        case "gs":
            return {"use_listings_cache": False, "requests_timeout": read}
        case _:
            return {}


class LostBucketError(OSError):
    """There is no such bucket, so nothing is known about the object."""


def lost_bucket(error: BaseException) -> bool:
    """Whether a 'not found' speaks of the bucket: then nothing is known about the object."""
    if isinstance(error, LostBucketError):
        return True
    response = getattr(error.__cause__, "response", None)
    return isinstance(response, dict) and response.get("Error", {}).get("Code") == "NoSuchBucket"


def absence(uri: str, system: Any, error: FileNotFoundError) -> LostBucketError | None:
    """What a 'not found' is worth: None where the object is absent indeed, else the error to raise in its place.

    S3 says in its answer that it means the bucket. Cloud Storage's client has one error for both, so the bucket itself
    is asked for; may it not be looked at, then it is there, since a bucket that is not is never forbidden.

    Args:
        uri: what was not found.
        system: the opened fsspec file system.
        error: what it raised.

    Raises:
        Exception: whatever else the store's client raises when it is asked: nothing is known then.
    """
    split = urlsplit(uri)
    lost = LostBucketError(f"there is no bucket {split.netloc}")
    if lost_bucket(error):
        return lost
    if split.scheme != "gs":
        return None
    try:
        # Not `info`: where the bucket itself may not be read, it takes an empty bucket for a missing one.
        system.call("GET", "b/{}/o", split.netloc, maxResults=1, json_out=True)
    except FileNotFoundError:
        return lost
    except OSError as refused:
        if not str(refused).startswith("Forbidden"):
            raise
    return None


def next_step(uri: str, error: BaseException) -> str:
    """What a person does about a store that fails, by what failed."""
    scheme = urlsplit(uri).scheme
    if isinstance(error, ImportError):
        package = PACKAGES.get(scheme, "the scheme's file system")
        return f"The image lacks {package}: build it with the extra `operator` or `worker`, or install {package}"
    if lost_bucket(error):
        return "Create the bucket, or correct the URI and the endpoint"
    if isinstance(error, PermissionError) or "Credential" in type(error).__name__ or "Auth" in type(error).__name__:
        return "Check the credentials and that they may get, put and list under this prefix"
    if isinstance(error, TimeoutError) or "Connect" in type(error).__name__:
        return "Check the endpoint and networkPolicy.artifactPorts"
    return "It is tried again; check the artifact store where this lasts"


def said(error: BaseException) -> str:
    """An error's kind and words without credentials, at most some 300 characters."""
    text = without_secrets(" ".join(str(error).split()))
    cut = text if len(text) <= _MOST_SAID else f"{text[: _MOST_SAID - 1]}…"
    return f"{type(error).__name__}: {cut}" if cut else type(error).__name__


def without_secrets(text: str) -> str:
    """The text without the process's own credentials, users in URLs, query strings (signatures) and access keys."""
    for variable in _SECRET_VARIABLES:
        value = os.environ.get(variable, "")
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, _HIDDEN)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text
