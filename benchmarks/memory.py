"""Whether memory stays flat: the real clips, looped as live cameras, and each process's memory once a minute.

    python benchmarks/memory.py --data ../shared/data --minutes 20

Each clip is sent again and again, at its own pace and without a seam in its timestamps, as MPEG-TS over TCP; the site
follows five live cameras that never end. Prints RSS in MiB and open files per process, then by how much each grew after
minute 5.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import psutil  # type: ignore[import-untyped]
import yaml

from streamer.config import load_site
from streamer.counters import Field
from streamer.supervisor import Supervisor

MEBIBYTE = 1 << 20
#: Loading, first batches and caches are over by then.
SETTLED_MINUTE = 5
_CLOCK = Fraction(1, 90_000)


def feed(video: Path, port: int) -> None:
    """Sends a clip for ever to whoever connects; a process of its own."""
    while True:
        try:
            with av.open(f"tcp://127.0.0.1:{port}?listen=1", "w", format="mpegts") as output:
                _loop(video, output)
        except av.error.FFmpegError:
            continue


def _loop(video: Path, output: av.container.OutputContainer) -> None:
    began, offset, stream = time.monotonic(), 0, None
    while True:
        with av.open(str(video)) as clip:
            source = clip.streams.video[0]
            stream = stream or output.add_stream_from_template(source)
            length = int(source.duration * source.time_base / _CLOCK)
            for packet in clip.demux(source):
                if packet.dts is None:
                    continue
                scale = packet.time_base / _CLOCK
                packet.pts, packet.dts = int(packet.pts * scale) + offset, int(packet.dts * scale) + offset
                packet.time_base, packet.stream = _CLOCK, stream
                time.sleep(max(0.0, float(packet.dts * _CLOCK) - (time.monotonic() - began)))
                output.mux(packet)
        offset += length


def site_file(folder: Path, ports: dict[str, int]) -> Path:
    """A site of live cameras."""
    cameras = [{"id": name, "url": f"tcp://127.0.0.1:{port}", "modality": "visible"} for name, port in ports.items()]
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump({"site": "memory", "database": "sqlite:///memory.db", "cameras": cameras}))
    return path


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


@dataclass(frozen=True, slots=True)
class Size:
    """What a process takes at one moment: memory in MiB, and open files; 0 for one that is between two lives."""

    mebibytes: float
    files: int

    @classmethod
    def of(cls, pid: int | None) -> Size:
        """Of the process with that id."""
        if pid is None:
            return cls(0.0, 0)
        process = psutil.Process(pid)
        return cls(process.memory_info().rss / MEBIBYTE, process.num_fds())

    def since(self, other: Size) -> Size:
        """By how much it grew."""
        return Size(self.mebibytes - other.mebibytes, self.files - other.files)


def sizes(supervisor: Supervisor) -> dict[str, Size]:
    """Of every process of the site."""
    found = {"supervisor": Size.of(os.getpid())}
    for child in supervisor.children:
        process = child.process
        found[child.stage] = Size.of(process.pid if process is not None and process.exitcode is None else None)
    return found


def watch(supervisor: Supervisor, minutes: int) -> list[dict[str, Size]]:
    """Prints a line a minute, from a thread; ends the run after the last."""
    samples: list[dict[str, Size]] = []

    def run() -> None:
        for minute in range(minutes + 1):
            samples.append(sizes(supervisor))
            print(f"{minute:4d}  {_shown(samples[-1])}  {_progress(supervisor)}", flush=True)
            if minute < minutes:
                time.sleep(60)
        supervisor.stop()

    threading.Thread(target=run, daemon=True).start()
    supervisor.run()
    return samples


def _shown(found: dict[str, Size]) -> str:
    return "  ".join(f"{name} {size.mebibytes:7.1f}/{size.files}" for name, size in found.items())


def _progress(supervisor: Supervisor) -> str:
    rows = [supervisor.board.camera(name) for name in supervisor.board.cameras]
    fields = (Field.DECODED, Field.DROPPED, Field.SIGHTINGS)
    return "  ".join(f"{field.name.lower()} {sum(row.count(field) for row in rows)}" for field in fields)


def main() -> None:
    """Runs the loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=int, default=20)
    given = parser.parse_args()
    videos = sorted((given.data / "video").glob("*.mp4"))
    if not videos:
        sys.exit(f"{given.data / 'video'}: no *.mp4")
    ports = dict(zip((video.stem for video in videos), free_ports(len(videos)), strict=True))
    context = get_context("spawn")
    feeders = [context.Process(target=feed, args=(video, ports[video.stem]), daemon=True) for video in videos]
    for feeder in feeders:
        feeder.start()
    with tempfile.TemporaryDirectory() as folder:
        supervisor = Supervisor(load_site(site_file(Path(folder), ports)), log_level=40)
        try:
            supervisor.start()
            samples = watch(supervisor, given.minutes)
        finally:
            supervisor.close()
    settled = samples[min(SETTLED_MINUTE, len(samples) - 1)]
    growth = {name: samples[-1][name].since(size) for name, size in settled.items()}
    print(f"growth after minute {SETTLED_MINUTE}, MiB/files: {_shown(growth)}")
    for feeder in feeders:
        feeder.kill()


if __name__ == "__main__":
    main()
