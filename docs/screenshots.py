"""The pictures of report.md: `python docs/screenshots.py RESULTS`, with Debian's chromium and playwright."""

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
    ("report-dark", WIDE, "dark", "atvitsc"),
    ("report-dark-phone", PHONE, "dark", "atvitsc"),
)


@contextmanager
def served(results: Path) -> Iterator[dict[str, str]]:
    """What `bench ui` prints: addresses by the names of experiments, that with the newest run first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("bench")), "ui", "--results", str(results), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        try:
            lines = [bench.stdout.readline() for _ in Tracker(results).experiments()]
            yield {name: address for address, name in (line.strip().split("  ") for line in lines)}
        finally:
            bench.send_signal(signal.SIGINT)


def report(browser: Any, results: Path, folder: Path) -> None:
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
        page.screenshot(path=IMAGES / f"{name}.png")
        page.close()


def compare(browser: Any, results: Path) -> None:
    """MLflow's table of runs at the address that `bench ui` prints, and from there its comparison of two methods."""
    with served(results) as addresses:
        for suffix, size in (("", WIDE), ("-phone", PHONE)):
            page = browser.new_page(viewport=size)
            page.goto(next(iter(addresses.values())))
            for method in COMPARED:
                row = page.locator("[role=row]").filter(has_text=f"{method} · seed").first
                row.wait_for(timeout=120_000)
                row.get_by_role("checkbox").first.check()
            page.screenshot(path=IMAGES / f"mlflow-runs{suffix}.png")
            page.get_by_role("button", name="Compare").first.click()
            page.get_by_text("Comparing 2 Runs").wait_for(timeout=120_000)
            page.get_by_text("macro_f1", exact=True).first.scroll_into_view_if_needed(timeout=120_000)
            page.screenshot(path=IMAGES / f"mlflow-compare{suffix}.png")
            page.close()


def main(results: Path) -> None:
    """Make all pictures."""
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        report(browser, results, Path(folder))
        compare(browser, results)
        browser.close()
    for picture in IMAGES.glob("*.png"):  # a third of the bytes, and no difference to see
        Image.open(picture).convert("RGB").quantize(256).save(picture, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
