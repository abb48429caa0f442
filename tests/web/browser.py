"""A real browser and a real server of the page, for tests that look at it as a person does."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import yaml

from tests.servers.need import absent, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

ROOT = Path(__file__).resolve().parent.parent.parent
#: Chromium, as it starts where there is no display, and asks nothing of the world by itself.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium; skips the test where there is none."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        absent("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def demo_site(folder: Path) -> Path:
    """A site file with the demo's cameras whose database and pictures lie in that folder; what it saw is stored there.

    Takes as long as the demo: some 16 seconds on two cores.
    """
    document = yaml.safe_load((ROOT / "configs/demo.yaml").read_text(encoding="utf-8"))
    document["database"] = f"sqlite:///{folder / 'demo.db'}"
    document["crops_dir"] = str(folder / "crops")
    for camera in document["cameras"]:
        camera["url"] = str((ROOT / "configs" / camera["url"]).resolve())
    plan = document.get("web", {}).get("plan", {})
    if "image" in plan:
        plan["image"] = str(ROOT / "configs" / plan["image"])
    site = folder / "demo.yaml"
    site.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [sys.executable, "-m", "streamer", "--config", str(site), "--quiet"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=240)
    return site


@contextmanager
def page_server(site: Path) -> Iterator[str]:
    """The address of `python -m web` on that site, without a slash at its end."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "web", "--config", str(site), "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            wait_until(lambda: server.poll() is not None or _answers(address), what="the page")
            if server.poll() is not None:
                pytest.fail(f"the page ended: {server.communicate()[0]}")
            yield address
        finally:
            server.terminate()
            try:
                server.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()
                raise


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/openapi.json", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


class Witness:
    """Notes what a page should not do: errors on its console, requests that fail or leave this machine."""

    def __init__(self, page: Page) -> None:
        self.faults: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("request", self._request)
        page.on("response", lambda answer: self._answer(answer.status, answer.url))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console {message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        host = urlsplit(request.url).hostname
        if request.url.startswith(("http", "ws")) and host != "127.0.0.1":
            self.faults.append(f"left this machine: {request.url}")

    def _answer(self, status: int, url: str) -> None:
        if status >= 400:
            self.faults.append(f"{status}: {url}")
