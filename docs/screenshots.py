"""The pictures of report.md: `python docs/screenshots.py RESULTS`, with Debian's chromium and playwright."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
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
PAGES = (("report", WIDE, "light"), ("report-phone", PHONE, "light"), ("report-dark", WIDE, "dark"))


@contextmanager
def served(results: Path) -> Iterator[str]:
    """Address of `bench ui` on a free port; ended with its workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("bench")), "ui", "--results", str(results), "--port", str(port)]
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=silent, stderr=silent, start_new_session=True) as server:
        try:
            wait(f"http://127.0.0.1:{port}/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def wait(address: str, server: "subprocess.Popen[bytes]") -> None:
    """Until it answers."""
    for _ in range(240):
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode}")
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"nothing answers at {address}")


def report(browser: Any, results: Path, folder: Path) -> None:
    """The page at two widths, and dark with a row unfolded."""
    write(Tracker(results), folder / "report.html")
    for name, size, scheme in PAGES:
        page = browser.new_page(viewport=size, color_scheme=scheme)
        page.goto((folder / "report.html").as_uri())
        if scheme == "dark":
            page.get_by_text("atvitsc", exact=False).and_(page.locator("summary")).first.click()
            page.locator("details[open]").evaluate("element => element.scrollIntoView()")
        else:
            page.locator("h2[id]").first.evaluate("element => element.scrollIntoView()")
        page.screenshot(path=IMAGES / f"{name}.png")
        page.close()


def compare(browser: Any, results: Path) -> None:
    """MLflow's own table and compare page, of one run a method."""
    records = {record.spec.method: record for record in Tracker(results).search() if record.status == "done"}
    chosen = [records[name].run_id for name in ("forest", "knn", "atvitsc")]
    listed = ",".join(f'"{run}"' for run in chosen)
    page = browser.new_page(viewport={"width": 1700, "height": 800})
    with served(results) as address:
        page.goto(f"{address}/#/experiments/1/runs")
        page.get_by_text("seed 0").first.wait_for(timeout=120_000)
        page.get_by_role("button", name="Close").click()  # MLflow's assistant
        page.get_by_role("button", name="Group by").click()
        page.get_by_placeholder("Search").last.fill("row")
        page.get_by_text("row", exact=True).last.click()
        page.keyboard.press("Escape")
        page.get_by_text("Group by: row").wait_for(timeout=60_000)
        page.get_by_role("button", name="Columns", exact=True).click()
        page.get_by_placeholder("Search").last.fill("macro_f1")
        page.locator("[class*=treenode]").filter(has_text=re.compile("^macro_f1$")).locator(
            "[class*=tree-checkbox]"
        ).first.click()
        page.get_by_text("Training runs").last.click()  # closes the list
        page.get_by_text("Group: ").first.wait_for(timeout=60_000)
        page.screenshot(path=IMAGES / "mlflow-runs.png")
        page.goto(f'{address}/#/compare-runs?runs=[{listed}]&experiments=["1"]')
        page.get_by_text("Run details").scroll_into_view_if_needed(timeout=120_000)
        page.screenshot(path=IMAGES / "mlflow-compare.png")


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
