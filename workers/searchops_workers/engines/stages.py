"""Where a build can stop, as the Job's exit code says it."""

from __future__ import annotations

from enum import IntEnum

from searchops.api.tasks import (
    EXIT_ACCURACY,
    EXIT_BAD_CHECKPOINT,
    EXIT_DIGEST_MISMATCH,
    EXIT_ENGINE,
    EXIT_EXPORT,
    EXIT_NO_GPU,
    EXIT_OK,
    EXIT_PARSE,
    EXIT_PUBLISH,
    EXIT_RETRY,
)


class BuildStage(IntEnum):
    """Exit codes of a build; the Job's podFailurePolicy and the model's conditions map them."""

    DONE = EXIT_OK
    RETRY = EXIT_RETRY
    BAD_CHECKPOINT = EXIT_BAD_CHECKPOINT
    DIGEST_MISMATCH = EXIT_DIGEST_MISMATCH
    EXPORT = EXIT_EXPORT
    PARSE = EXIT_PARSE
    ENGINE = EXIT_ENGINE
    ACCURACY = EXIT_ACCURACY
    NO_GPU = EXIT_NO_GPU
    PUBLISH = EXIT_PUBLISH
    DISRUPTED = 143


class BuildError(RuntimeError):
    """A build stopped.

    Attributes:
        stage: where, which is also the exit code.
    """

    def __init__(self, stage: BuildStage, message: str) -> None:
        super().__init__(message)
        self.stage = stage


class Disrupted(BaseException):
    """The process was told to stop. No Exception, so that no library boundary takes it for a verdict on the model."""
