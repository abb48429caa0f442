"""OpenVINO without its reporter: importing the library alone starts a process that writes to Google Analytics."""

from __future__ import annotations

import sys

# None makes the reporter's import fail, and OpenVINO then does without.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402 - only now

__all__ = ["openvino"]
