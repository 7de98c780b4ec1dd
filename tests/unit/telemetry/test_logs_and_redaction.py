"""Structured logs, and that no secret ever gets out through them."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from searchops.telemetry.logs import configure_logging, reconcile_scope
from searchops.telemetry.redaction import REDACTED, Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhY2Nlc3MiOiJyIiwiY2VsbCI6ImV1LTEifQ.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
CELL_KEY = "k3y-of-a-cell-that-nobody-may-read-0123456789"


@pytest.fixture
def redactor() -> Redactor:
    return Redactor()


@pytest.fixture
def stream(redactor: Redactor) -> Iterator[io.StringIO]:
    target = io.StringIO()
    undo = configure_logging(style="json", level="DEBUG", redactor=redactor, stream=target)
    yield target
    undo()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_both_kinds_of_loggers_write_json_with_the_reconcile_id(stream: io.StringIO) -> None:
    with reconcile_scope("tenants", "shop/a") as reconcile_id:
        logging.getLogger("searchops.runtime.x").info("moved %s", "on", extra={"retry_after": 3})
        structlog.get_logger("searchops.y").warning("switched", collection="c@g2")
    logging.getLogger("z").info("outside")
    first, second, third = lines(stream)
    assert {**first, "time": ""} == {
        "event": "moved on",
        "retry_after": 3,
        "level": "info",
        "logger": "searchops.runtime.x",
        "reconcile_id": reconcile_id,
        "controller": "tenants",
        "object": "shop/a",
        "time": "",
    }
    assert second["reconcile_id"] == reconcile_id
    assert (second["event"], second["collection"], second["level"]) == ("switched", "c@g2", "warning")
    assert "reconcile_id" not in third
    assert first["time"].endswith("Z")


def test_scopes_have_ids_of_their_own() -> None:
    with reconcile_scope("tenants", "a") as one:
        pass
    with reconcile_scope("tenants", "a") as other:
        pass
    assert one != other


LEAKS: list[Callable[[logging.Logger], None]] = [
    lambda log: log.info("signed %s for the indexer", JWT),
    lambda log: log.info("x", extra={"apiKey": CELL_KEY}),
    lambda log: log.info("x", extra={"cell": {"altApiKey": CELL_KEY, "nodes": [{"api_key": CELL_KEY}]}}),
    lambda log: log.info("x", extra={"headers": {"Authorization": f"Bearer {CELL_KEY}"}}),
    lambda log: log.info("x", extra={"header": f"authorization: Bearer {CELL_KEY}"}),
    lambda log: log.info("GET https://cell:6333/collections?api-key=%s&x=1", CELL_KEY),
    lambda log: log.info('body {"token": "%s"}', CELL_KEY),
    lambda log: log.info("connect to s3://user:%s@store/bucket", CELL_KEY),
    lambda log: log.info("x", extra={"tokens": [CELL_KEY, CELL_KEY]}),
    lambda log: log.info("x", extra={"secret": CELL_KEY.encode()}),
    lambda log: log.info("x", extra={"thing": ("nested", {"password": CELL_KEY})}),
    lambda log: log.error("x", exc_info=ValueError(f"the server said: token={CELL_KEY}")),
]


@pytest.mark.parametrize("leak", LEAKS)
def test_neither_names_nor_shapes_let_a_secret_out(leak: Callable[[logging.Logger], None], stream: io.StringIO) -> None:
    leak(logging.getLogger("x"))
    assert CELL_KEY not in stream.getvalue()
    assert JWT not in stream.getvalue()
    assert REDACTED in stream.getvalue()


def test_a_protected_value_is_found_wherever_it_stands(stream: io.StringIO, redactor: Redactor) -> None:
    redactor.protect(CELL_KEY)
    log = logging.getLogger("x")
    log.info("plain %s plain", CELL_KEY)
    log.info("x", extra={"innocent": [f"prefix{CELL_KEY}suffix", {CELL_KEY: 1}]})

    class Careless:
        def __repr__(self) -> str:
            return f"Careless(key={CELL_KEY!r})"

    log.info("x", extra={"thing": Careless()})
    structlog.get_logger("y").error(CELL_KEY)
    assert CELL_KEY not in stream.getvalue()
    assert stream.getvalue().count(REDACTED) >= 5
    assert CELL_KEY not in repr(redactor)


def test_tracebacks_carry_neither_local_variables_nor_secrets(stream: io.StringIO, redactor: Redactor) -> None:
    redactor.protect(CELL_KEY)

    def connect(local_secret: str) -> None:
        raise ConnectionError(f"refused with {local_secret}")

    try:
        connect(CELL_KEY)
    except ConnectionError:
        logging.getLogger("x").exception("failed")
    (line,) = lines(stream)
    assert "ConnectionError" in line["exception"]
    assert "in connect" in line["exception"]
    assert CELL_KEY not in stream.getvalue()


def test_the_console_form_redacts_as_well(redactor: Redactor) -> None:
    target = io.StringIO()
    undo = configure_logging(style="console", level="INFO", redactor=redactor, stream=target)
    redactor.protect(CELL_KEY)
    try:
        raise RuntimeError(f"with {CELL_KEY}")
    except RuntimeError:
        logging.getLogger("x").exception("failed with %s", JWT, extra={"apiKey": CELL_KEY})
    logging.getLogger("x").debug("below the level")
    undo()
    assert "failed with" in target.getvalue()
    assert "RuntimeError" in target.getvalue()
    assert CELL_KEY not in target.getvalue()
    assert JWT not in target.getvalue()
    assert "below the level" not in target.getvalue()


@pytest.mark.parametrize(
    "harmless",
    [
        {"secretName": "acme-storefront"},
        {"retryToken": "2"},
        {"key": "shop/a", "reason": "TokenExpired", "tokens_renewed": 3},
        {"message": "the token expires at 2026-01-01; renew it"},
        {"collection": "prod.shop.acme@g2", "revision": "shop-encoder-r3-4be1c7aa", "digest": "sha256:" + "ab" * 32},
        {"uri": "s3://models/shop-encoder/2026-11-20"},
    ],
)
def test_what_people_need_to_read_stays(harmless: dict[str, Any]) -> None:
    assert Redactor().value(harmless) == harmless


@given(st.text(min_size=8, max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_a_protected_text_is_never_left(secret: str, before: str, after: str) -> None:
    redactor = Redactor()
    redactor.protect(secret)
    cleaned = redactor.text(before + secret + after)
    remains = cleaned.replace(REDACTED, "\0")
    assert secret not in remains


def test_protected_values_are_bounded() -> None:
    redactor = Redactor()
    redactor.protect("short")
    assert redactor.text("short") == "short"
    redactor.protect(*(f"secret-{number:06d}" for number in range(50_010)))
    assert "50000 protected" in repr(redactor)
