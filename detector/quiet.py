"""Keeping the detector's libraries off the network: nothing is sent, looked up or fetched unless asked for."""

from __future__ import annotations

import os
import sys


def quiet_libraries() -> None:
    """Turn off what Ultralytics, OpenVINO and NNCF would do on the internet; call it before importing them.

    Ultralytics looks for updates, installs what it misses and fetches weights; a variable that the user has set
    stays as it is. `import openvino` alone starts a process that reports to Google Analytics; where its reporter
    cannot be imported, OpenVINO and NNCF do without.
    """
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: importing it fails
