"""Where a build can stop, as the Job's exit code says it."""

from __future__ import annotations

from enum import IntEnum


class BuildStage(IntEnum):
    """Exit codes of a build; the Job's podFailurePolicy and the model's conditions map them."""

    DONE = 0
    RETRY = 1
    BAD_CHECKPOINT = 40
    DIGEST_MISMATCH = 41
    EXPORT = 42
    PARSE = 43
    ENGINE = 44
    ACCURACY = 45
    NO_GPU = 46
    PUBLISH = 47
    DISRUPTED = 143


class BuildError(RuntimeError):
    """A build stopped.

    Attributes:
        stage: where, which is also the exit code.
    """

    def __init__(self, stage: BuildStage, message: str) -> None:
        super().__init__(message)
        self.stage = stage
