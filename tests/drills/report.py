"""Writes what the drills found last into docs/reliability.md, between its marks: `python -m tests.drills.report`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.drills.figures import FOLDER

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
_BLOCK = re.compile(r"<!-- figures: (?P<drill>\w+) -->\n.*?<!-- end -->", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one case of a drill found last.

    Attributes:
        drill: The drill's name, as in the page's marks.
        case: The fault.
        form: `short` or `full`.
        on: The day, as YYYY-MM-DD.
        figures: By name, with the unit in it.
    """

    drill: str
    case: str
    form: str
    on: str
    figures: dict[str, float | str]

    def row(self) -> str:
        """The finding as a line of a table."""
        said = ", ".join(f"{name} {_shown(value)}" for name, value in self.figures.items())
        return f"| {self.case} | {said} | {self.form}, {self.on} |"


def read_findings(folder: Path = FOLDER) -> list[Finding]:
    """All that is noted, by drill and case."""
    found = (Finding(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json"))
    return sorted(found, key=lambda finding: (finding.drill, finding.case))


def table(findings: Iterable[Finding]) -> str:
    """The findings as a table."""
    return "\n".join(["| fault | found | run |", "|---|---|---|", *(finding.row() for finding in findings)])


def fill_in(page: str, findings: Iterable[Finding]) -> str:
    """The page with the newest tables between its marks; a drill of which nothing is noted keeps the table it has."""
    by_drill: dict[str, list[Finding]] = {}
    for finding in findings:
        by_drill.setdefault(finding.drill, []).append(finding)

    def renewed(match: re.Match[str]) -> str:
        drill = match["drill"]
        if drill not in by_drill:
            return match[0]
        return f"<!-- figures: {drill} -->\n{table(by_drill[drill])}\n<!-- end -->"

    return _BLOCK.sub(renewed, page)


def unknown_drills(page: str, findings: Iterable[Finding]) -> list[str]:
    """Drills that have figures and no place on the page."""
    places = {match["drill"] for match in _BLOCK.finditer(page)}
    return sorted({finding.drill for finding in findings} - places)


def _shown(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> int:
    """Rewrites the page; the exit status."""
    page, findings = PAGE.read_text(encoding="utf-8"), read_findings()
    if missing := unknown_drills(page, findings):
        sys.stderr.write(f"{PAGE.name}: no place for: {', '.join(missing)}\n")
        return 2
    PAGE.write_text(fill_in(page, findings), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name}: {len(findings)} findings\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
