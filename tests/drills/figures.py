"""What a drill found, noted in a file, so that docs/reliability.md is written by a program and not by hand."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

#: Where the figures lie; git ignores it.
FOLDER = Path(__file__).resolve().parents[2] / "runs" / "drills"
#: The long form of each drill (`make drills`), or the short one of CI.
IS_FULL = os.environ.get("DRILLS") == "full"


def size(short: int, full: int) -> int:
    """How much of something a drill does: little in CI, all of it in `make drills`."""
    return full if IS_FULL else short


def note(drill: str, case: str, **figures: float | str) -> None:
    """Keeps what a drill has measured, in place of what it measured last.

    Args:
        drill: Which, as docs/reliability.md lists it: `cameras`, `kafka`, `matcher`, `database`, ...
        case: The fault, in a few words.
        figures: By name, with the unit in it: `lost=0`, `back_s=1.8`.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    form = "full" if IS_FULL else "short"
    said = {"drill": drill, "case": case, "form": form, "on": f"{datetime.now(UTC):%Y-%m-%d}", "figures": figures}
    name = f"{drill}--{case}".replace(" ", "-").replace("/", "-")
    (FOLDER / f"{name}.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
