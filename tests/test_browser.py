"""Pages as a browser shows them: headless Chromium, at the width of a desk and of a phone."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

import pytest
from reported import EVIL, results_folder

from bench.report.page import write
from bench.tracking.tracker import Tracker

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
SIZES = {"desk": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
START_SECONDS = 240  # MLflow's server imports much, and machines are shared


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return results_folder(tmp_path_factory)


@pytest.fixture(scope="module")
def report(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write(Tracker(results, f"sqlite:///{results / 'mlflow.db'}"), path)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root may not sandbox
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Open an address; the page keeps what it asked for and complained of in ``asked`` and ``said``."""
    contexts = []

    def open_page(address, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.asked, page.said = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids="-".join)
def page(request, opened, report):
    size, scheme = request.param
    return opened(report, viewport=SIZES[size], color_scheme=scheme)


def unfold(page):
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")


def test_nothing_is_fetched_and_nothing_complained_of(page, report):
    unfold(page)
    assert [url for url in page.asked if not url.startswith("data:")] == [report]
    assert page.said == []
    assert page.locator("img").evaluate_all("all => all.map(one => one.naturalWidth > 0)") == [True]


def test_the_page_never_scrolls_sideways(page):
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("table").first.is_visible() and page.locator("svg").first.is_visible()


def test_pictures_and_boxes_have_names_and_headings_their_order(page):
    assert all(page.locator("img").evaluate_all("all => all.map(one => one.alt)"))
    assert all(page.locator("svg").evaluate_all("all => all.map(one => one.querySelector('title').textContent)"))
    assert all(page.locator("[role=region]").evaluate_all("all => all.map(one => one.ariaLabel)"))
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1


def test_text_can_be_read_in_light_and_dark(page):
    """WCAG 2 contrast of every element with text of its own against the background that it stands on."""
    unfold(page)
    worst = page.evaluate(
        """() => {
        const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
        const pixel = c => { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
                             return [...canvas.getImageData(0, 0, 1, 1).data]; };
        const line = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
        const light = ([r, g, b]) => .2126 * line(r) + .7152 * line(g) + .0722 * line(b);
        const clear = "rgba(0, 0, 0, 0)", cache = {}; let worst = [99, ""];
        const shown = c => cache[c] ??= light(pixel(c));
        for (const one of document.querySelectorAll("body *")) {
            if (![...one.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
            if (one.closest("title, desc")) continue;
            const ground = one => getComputedStyle(one).backgroundColor;
            let under = one; while (ground(under) === clear) under = under.parentElement;
            const style = getComputedStyle(one), ink = one.closest("svg") ? style.fill : style.color;
            const pair = [shown(ink), shown(ground(under))].sort((a, b) => b - a);
            const ratio = (pair[0] + .05) / (pair[1] + .05);
            if (ratio < worst[0]) worst = [ratio, one.outerHTML.slice(0, 120)];
        } return worst; }"""
    )
    assert 4.5 <= worst[0] < 99, worst


def test_the_first_tab_reaches_the_skip_link_and_boxes_scroll_by_keyboard(page):
    page.keyboard.press("Tab")  # what a key does comes a moment later: every step waits for it
    page.wait_for_function("document.activeElement.textContent === 'Skip to the results'")
    page.wait_for_function("document.querySelector('.skip').getBoundingClientRect().top >= 0")
    page.wait_for_function("getComputedStyle(document.activeElement).outlineStyle === 'solid'")
    page.keyboard.press("Enter")
    page.wait_for_url("**#results")
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('details').open")


def test_a_name_that_would_be_markup_is_text(page):
    unfold(page)
    assert page.get_by_role("heading", name=f"{EVIL} · {EVIL}").count() == 1
    assert page.locator("script").count() == 0 and page.locator("caption b, td em").count() == 0


def test_it_prints_with_everything_unfolded(opened, report):
    page = opened(report)
    page.emulate_media(media="print")
    assert page.locator(".confusion").first.is_visible()
    assert not page.get_by_role("navigation").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.fixture(scope="module")
def mlflow_page(results):
    """Address of `bench ui`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("bench"), "ui", "--results", results, "--port", str(port)]
    own = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    with subprocess.Popen(command, env=own, stdout=-3, stderr=-3, start_new_session=True) as server:
        try:
            wait(f"http://127.0.0.1:{port}/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def wait(address, server):
    for _ in range(START_SECONDS):
        assert server.poll() is None, f"the server ended with status {server.returncode}"
        try:
            return urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(1)
    pytest.fail(f"nothing answers at {address}")


@pytest.mark.slow
def test_mlflows_own_pages_show_and_compare_the_runs(mlflow_page, results, opened):
    tracker = Tracker(results, f"sqlite:///{results / 'mlflow.db'}")
    pair = [tracker.search(method=method, dataset="traffic", fold=0)[0] for method in ("forest", "majority")]
    experiment = tracker._client.get_run(pair[0].run_id).info.experiment_id
    page = opened(f"{mlflow_page}/#/experiments/{experiment}/runs", viewport=SIZES["desk"])
    page.get_by_text("forest · seed 0 fold 2").first.wait_for(timeout=120_000)
    assert page.get_by_text("bench/traffic/app").count()
    runs = ",".join(f'"{record.run_id}"' for record in pair)
    page.goto(f'{mlflow_page}/#/compare-runs?runs=[{runs}]&experiments=["{experiment}"]')
    page.get_by_text("Comparing 2 Runs").wait_for(timeout=120_000)
    for told in ("forest · seed 0 fold 0 · capture, 3 folds", "majority · seed 0 fold 0", "macro_f1", "settings"):
        page.get_by_text(told).first.wait_for(timeout=60_000)
    assert [url for url in page.asked if not url.startswith((mlflow_page, "data:", "blob:"))] == []
