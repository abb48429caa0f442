"""Each alert is raised by its fault, by no other, and by nothing on a site that is well."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.need import absent

RULES = Path(__file__).resolve().parents[1] / "docker" / "prometheus" / "alerts.yml"
PATIENCE_S = 60.0
CAMERA = 'camera="gate",region="main"'
#: A site that is well, minute by minute, in promtool's notation: `start+step x times`.
WELL = {
    f"tracker_camera_up{{{CAMERA}}}": "1+0x150",
    f"tracker_camera_last_frame_timestamp_seconds{{{CAMERA}}}": "0+60x150",
    f"tracker_camera_reconnects_total{{{CAMERA}}}": "1+0x150",
    f'tracker_camera_frames_total{{{CAMERA},outcome="decoded"}}': "0+1500x150",
    f'tracker_camera_frames_total{{{CAMERA},outcome="dropped"}}': "0+10x150",
    f"tracker_camera_packets_lost_total{{{CAMERA}}}": "0+1x150",
    f"tracker_camera_decode_errors_total{{{CAMERA}}}": "0+1x150",
    f"tracker_camera_clock_skew_seconds{{{CAMERA}}}": "0.2+0x150",
    f'tracker_camera_healthy{{{CAMERA},kind="covered"}}': "1+0x150",
    f"tracker_camera_sightings_lost_total{{{CAMERA}}}": "3+0x150",
    'up{job="tracker",instance="edge:9464"}': "1+0x150",
    'tracker_stage_up{stage="matcher"}': "1+0x150",
    'tracker_stage_restarts_total{stage="matcher"}': "2+0x150",
    'tracker_stage_failures_total{stage="matcher"}': "2+0x150",
    "tracker_outbox_oldest_seconds": "1+0x150",
    'tracker_outbox_dropped_total{kind="droppable"}': "9+0x150",
    "tracker_matcher_lag_messages": "40+0x150",
    "tracker_matcher_rejected_total": "7+0x150",
    'tracker_disk_free_bytes{folder="crops"}': "100000000000+0x150",
}
#: By alert the series that makes it, in place of the one that is well.
FAULTS = {
    "CameraDown": (f"tracker_camera_up{{{CAMERA}}}", "1+0x140 0+0x10"),
    "CameraStalled": (f"tracker_camera_last_frame_timestamp_seconds{{{CAMERA}}}", "0+60x140 8400+0x10"),
    "CameraUnstable": (f"tracker_camera_reconnects_total{{{CAMERA}}}", "0+1x150"),
    "CameraDropping": (f'tracker_camera_frames_total{{{CAMERA},outcome="dropped"}}', "0+400x150"),
    "CameraLosingPackets": (f"tracker_camera_packets_lost_total{{{CAMERA}}}", "0+120x150"),
    "CameraClockSkew": (f"tracker_camera_clock_skew_seconds{{{CAMERA}}}", "-8+0x150"),
    "CameraUnhealthy": (f'tracker_camera_healthy{{{CAMERA},kind="covered"}}', "1+0x140 0+0x10"),
    "SightingsLost": (f"tracker_camera_sightings_lost_total{{{CAMERA}}}", "3+0x145 4+0x5"),
    "TrackerAway": ('up{job="tracker",instance="edge:9464"}', "1+0x140 0+0x10"),
    "StageDown": ('tracker_stage_up{stage="matcher"}', "1+0x140 0+0x10"),
    "StageRestarting": ('tracker_stage_restarts_total{stage="matcher"}', "0+1x150"),
    "OutboxGrowing": ("tracker_outbox_oldest_seconds", "0+60x150"),
    "OutboxDropping": ('tracker_outbox_dropped_total{kind="droppable"}', "9+0x145 12+0x5"),
    "MatcherLagging": ("tracker_matcher_lag_messages", "9000+0x150"),
    "MatcherFailing": ('tracker_stage_failures_total{stage="matcher"}', "0+1x150"),
    "DeadLetters": ("tracker_matcher_rejected_total", "7+0x145 8+0x5"),
    "DiskFilling": ('tracker_disk_free_bytes{folder="crops"}', "100000000000-100000000x150"),
    "DiskAlmostFull": ('tracker_disk_free_bytes{folder="crops"}', "1000000000+0x150"),
}
NAMES = [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def raised(series: dict[str, str], folder: Path) -> set[str]:
    """The alerts that fire after two and a half hours."""
    case: dict[str, Any] = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        # An answer that can't be right: promtool then says which alerts there were.
        "promql_expr_test": [
            {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": "150m", "exp_samples": []}
        ],
    }
    file = folder / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}))
    try:
        done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, timeout=PATIENCE_S)
    except FileNotFoundError:
        absent("no promtool")
    said = done.stdout + done.stderr
    assert "FAILED" in said or "SUCCESS" in said, said
    assert "parse error" not in said, said
    return {name for name in NAMES if f'alertname="{name}"' in said}


@pytest.mark.integration
def test_nothing_is_raised_where_all_is_well(tmp_path: Path) -> None:
    assert raised(WELL, tmp_path) == set()


@pytest.mark.integration
@pytest.mark.parametrize("alert", NAMES)
def test_a_fault_raises_its_alert_and_no_other(alert: str, tmp_path: Path) -> None:
    name, values = FAULTS[alert]
    assert raised(WELL | {name: values}, tmp_path) == {alert}
