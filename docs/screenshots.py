"""The pictures of report.md: `python docs/screenshots.py RESULTS [FOLDER]`, with Debian's chromium and playwright.

RESULTS holds finished runs of the methods in `COMPARED`.  FOLDER is docs/images by default.
"""

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from bench.report.page import write
from bench.tracking.tracker import Tracker

IMAGES = Path(__file__).with_name("images")
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
COMPARED = ("forest", "knn")
PAGES = (  # picture, size, colours, what is unfolded
    ("report", WIDE, "light", ""),
    ("report-phone", PHONE, "light", ""),
    ("report-split", WIDE, "light", "The split: "),
    ("report-dark", WIDE, "dark", COMPARED[0]),
    ("report-dark-phone", PHONE, "dark", COMPARED[0]),
)
PATIENCE = 300_000  # ms; MLflow's page takes a minute where other work fills the processor


@contextmanager
def served(results: Path) -> Iterator[dict[str, str]]:
    """What `bench ui` prints: addresses by the names of experiments, that with the newest run first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bench", "ui", "--results", str(results), "--port", str(port), "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        try:
            lines = [bench.stdout.readline() for _ in Tracker(results).experiments()]
            yield {name: address for address, name in (line.strip().split("  ") for line in lines)}
        finally:
            bench.send_signal(signal.SIGINT)


def report(browser: Any, results: Path, images: Path, folder: Path) -> None:
    """The page at two widths, a split unfolded, and dark with a row unfolded."""
    write(Tracker(results), folder / "report.html")
    for name, size, scheme, opened in PAGES:
        page = browser.new_page(viewport=size, color_scheme=scheme)
        page.goto((folder / "report.html").as_uri())
        if opened:
            page.get_by_text(opened).and_(page.locator("summary")).first.click()
            page.locator("details[open]").evaluate("element => element.scrollIntoView()")
        else:
            page.locator("h2[id]").first.evaluate("element => element.scrollIntoView()")
        page.screenshot(path=images / f"{name}.png")
        page.close()


def make_room(page: Any) -> None:
    """Close what MLflow opens beside the runs: its assistant, its note on shared views, and on a phone its menu."""
    page.locator('[data-component-id="mlflow.assistant.chat_panel.close"]').click()
    page.get_by_role("button", name="Hide banner").click()
    if page.viewport_size == PHONE:
        page.get_by_role("button", name="Toggle sidebar").click()


def compare(browser: Any, results: Path, images: Path) -> None:
    """MLflow's table of runs at the address that `bench ui` prints, and from there its comparison of two methods."""
    with served(results) as addresses:
        for suffix, size in (("", WIDE), ("-phone", PHONE)):
            page = browser.new_page(viewport=size)
            page.set_default_timeout(PATIENCE)
            page.goto(next(iter(addresses.values())))
            make_room(page)
            for method in COMPARED:
                row = page.locator("[role=row]").filter(has_text=f"{method} · seed").first
                row.wait_for()
                row.get_by_role("checkbox").first.check()
            page.screenshot(path=images / f"mlflow-runs{suffix}.png")
            page.get_by_role("button", name="Compare").first.click()
            page.get_by_text("Comparing 2 Runs").wait_for()
            page.get_by_text("Metrics", exact=True).last.evaluate("element => element.scrollIntoView()")
            page.get_by_text("macro_f1", exact=True).first.wait_for()
            page.screenshot(path=images / f"mlflow-compare{suffix}.png")
            page.close()


def main(results: Path, images: Path = IMAGES) -> None:
    """Make all pictures."""
    images.mkdir(exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        report(browser, results, images, Path(folder))
        compare(browser, results, images)
        browser.close()
    for picture in images.glob("*.png"):  # a third of the bytes, and no difference to see
        Image.open(picture).convert("RGB").quantize(256).save(picture, optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
