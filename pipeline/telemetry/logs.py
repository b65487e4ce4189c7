"""Structured lines on standard error: for people, or JSON."""

import logging
import sys
from typing import Final, Literal

import structlog

# Their retries and reconnects are our errors or nothing: what matters is raised to us.
_CHATTY: Final = ("aiokafka", "faust", "mode", "asyncio")


def configure_logging(form: Literal["console", "json"]) -> None:
    """Set up structlog, and the standard library's loggers at warning and above."""
    renderer: structlog.types.Processor = structlog.processors.JSONRenderer()
    if form == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


def silence_drivers() -> None:
    """For commands that print: a driver's retries are no concern of their user."""
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
