"""Structured logs: JSON for machines, coloured lines for people, the reconcile's id on every line, no secret on any.

Our own modules log through the standard library or through structlog; both end in one handler with one chain of
processors, the last of which before rendering takes secrets out. Tracebacks are rendered without local variables.
"""

from __future__ import annotations

import logging
import sys
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping

    from structlog.typing import EventDict, Processor, WrappedLogger

    from searchops.telemetry.redaction import Redactor

LogFormat = Literal["json", "console"]


def redacting(redactor: Redactor) -> Processor:
    """A processor that passes every field through the redactor."""

    def process(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        del logger, method
        internal = {name: value for name, value in event.items() if name.startswith("_")}
        shown = {name: redactor.value(value, name) for name, value in event.items() if not name.startswith("_")}
        return {**shown, **internal}

    return process


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]


def formatter(style: LogFormat, redactor: Redactor, *, colors: bool = False) -> logging.Formatter:
    """The formatter of the one handler."""
    renderer: Processor = (
        structlog.processors.JSONRenderer(sort_keys=True)
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="time")
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            redacting(redactor),
            renderer,
        ],
    )


def configure_logging(
    *, style: LogFormat, level: str, redactor: Redactor, stream: TextIO | None = None
) -> Callable[[], None]:
    """Send every log line of the process through the one handler; returns the way to undo it.

    Args:
        style: `json` or `console`.
        level: name of the lowest level written, such as ``INFO``.
        redactor: takes secrets out of every field, message and traceback.
        stream: where lines go; standard error by default.
    """
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    handler.setFormatter(formatter(style, redactor, colors=target.isatty()))
    root = logging.getLogger()
    before, level_before = root.handlers[:], root.level
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )

    def undo() -> None:
        root.handlers[:] = before
        root.setLevel(level_before)
        structlog.reset_defaults()

    return undo


@contextmanager
def reconcile_scope(controller: str, key: Any, **fields: str) -> Iterator[str]:
    """Bind a new `reconcile_id`, the controller and the key to every log line inside; yields the id."""
    reconcile_id = uuid.uuid4().hex[:12]
    bound: MutableMapping[str, Any] = {"reconcile_id": reconcile_id, "controller": controller, "object": str(key)}
    with structlog.contextvars.bound_contextvars(**bound, **fields):
        yield reconcile_id
