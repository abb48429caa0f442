"""Benchmarks are scripts, in no package: their folder is put where Python looks for them when one is run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
