"""How long a newcomer waits for the page: a real browser, an empty cache, the demo's database.

    make demo
    python benchmarks/first_view.py --config configs/demo.yaml

Each view is opened `--rounds` times in a browser that has never seen it, and once more in one that has. Printed are
the medians: when the first byte came, when something was first painted and when the largest part was, when all was
loaded, what had to be fetched. Where a first view took longer than `--limit-s`, or anything was asked of another host,
the status is 1.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

VIEWS = ("/", "/vehicles", "/search", "/review", "/watch", "/health")
WIDTHS = (1280, 390)
#: How long the program may take until it listens.
START_S = 60.0
#: What the browser itself measured, in milliseconds from the navigation's start.
_MEASURE = """async () => {
  const largest = await new Promise(done => {
    new PerformanceObserver(list => done(list.getEntries().at(-1).startTime))
      .observe({type: 'largest-contentful-paint', buffered: true});
    setTimeout(() => done(null), 3000);
  });
  const [navigation] = performance.getEntriesByType('navigation');
  const paint = performance.getEntriesByName('first-contentful-paint')[0];
  const fetched = performance.getEntriesByType('resource');
  return {
    firstByte: navigation.responseStart, paint: paint ? paint.startTime : null, largest,
    loaded: navigation.loadEventEnd, requests: fetched.length + 1,
    bytes: navigation.transferSize + fetched.reduce((sum, one) => sum + one.transferSize, 0),
  };
}"""


@dataclass(frozen=True, slots=True)
class Look:
    """One view, opened once; times in seconds since the navigation began."""

    first_byte_s: float
    paint_s: float
    largest_s: float
    loaded_s: float
    requests: int
    bytes: int
    strangers: tuple[str, ...]


@contextmanager
def served(config: Path) -> Iterator[str]:
    """The page of that site, by its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "web", "--config", str(config), "--port", str(port)]
    with subprocess.Popen(command) as server:
        try:
            deadline_s = time.monotonic() + START_S
            while not _listens(port):
                if server.poll() is not None or time.monotonic() > deadline_s:
                    sys.exit("the page did not start")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def look(context: BrowserContext, url: str) -> Look:
    """Opens a view, waits until nothing more comes, and asks the browser how long it took."""
    page = context.new_page()
    strangers: list[str] = []
    own = urlsplit(url).hostname
    page.on("request", lambda request: strangers.append(request.url) if _is_strange(request.url, own) else None)
    page.goto(url, wait_until="load")
    page.wait_for_selector("main, .q-page", state="visible")
    page.wait_for_timeout(500)
    found: dict[str, Any] = page.evaluate(_MEASURE)
    page.close()
    times = [found[name] for name in ("firstByte", "paint", "largest", "loaded")]
    first_byte, paint, largest, loaded = ((value or 0.0) / 1000 for value in times)
    return Look(first_byte, paint, largest, loaded, found["requests"], found["bytes"], tuple(strangers))


def _is_strange(url: str, own: str | None) -> bool:
    return url.startswith(("http", "ws")) and urlsplit(url).hostname != own


def looks(browser: Browser, url: str, width: int, rounds: int) -> tuple[list[Look], Look]:
    """The view by newcomers, and once by somebody who has been there."""
    first = []
    for _ in range(rounds):
        context = browser.new_context(viewport={"width": width, "height": 800})
        first.append(look(context, url))
        again = look(context, url)
        context.close()
    return first, again


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit-s", type=float, default=2.0)
    given = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium on this machine (Debian: apt-get install chromium)")

    from playwright.sync_api import sync_playwright

    slowest, strangers = 0.0, set()
    print("| view | width | first byte s | painted s | largest s | loaded s | requests | KiB | loaded again s |")
    print("|---|---|---|---|---|---|---|---|---|")
    with served(given.config) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for width in WIDTHS:
            for view in VIEWS:
                first, again = looks(browser, address + view, width, given.rounds)
                strangers |= {url for one in first for url in one.strangers}
                middle = [median(getattr(one, name) for one in first) for name in Look.__slots__[:-1]]
                slowest = max(slowest, middle[2], middle[3])
                times = " | ".join(f"{value:.2f}" for value in middle[:4])
                print(
                    f"| {view} | {width} | {times} | {middle[4]:.0f} | {middle[5] / 1024:.0f} | {again.loaded_s:.2f} |"
                )
        browser.close()
    print(f"\nslowest first view {slowest:.2f} s, limit {given.limit_s:g}; requests to other hosts: {len(strangers)}")
    for url in sorted(strangers):
        print(f"  {url}")
    return int(slowest > given.limit_s or bool(strangers))


if __name__ == "__main__":
    sys.exit(main())
