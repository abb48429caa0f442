"""What a log line may say: one line an event, and no password."""

from __future__ import annotations

import logging

import pytest
import structlog

from streamer.children import set_up_logging

SECRET = "hunter2"
URL = f"rtsp://guard:{SECRET}@camera.example/stream"


def fail() -> None:
    raise OSError(f"{URL}: no route to host")


def test_no_password_of_an_address_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(logging.INFO)
    log = structlog.get_logger("test")
    try:
        fail()
    except OSError as error:
        log.warning("stream failed", reason=str(error), cause=error, urls=[URL])
        log.exception("stream failed")
    finally:
        structlog.reset_defaults()
    said = capsys.readouterr().err

    assert "guard:***@camera.example" in said
    assert SECRET not in said
    assert len(said.splitlines()) == 2


def test_numbers_and_switches_stay_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(logging.INFO)
    try:
        structlog.get_logger("test").info("done", count=3, share=0.5, good=True, nothing=None)
    finally:
        structlog.reset_defaults()

    assert "event=done count=3 share=0.5 good=true nothing=" in capsys.readouterr().err
