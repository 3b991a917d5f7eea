"""Pages as a browser shows them: headless Chromium, at the width of a desk and of a phone."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from reported import EVIL

from bench.report.page import write
from bench.tracking.tracker import Tracker

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
ALONE = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]  # root may not sandbox
SIZES = {"desk": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def report(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write(Tracker(results, f"sqlite:///{results / 'mlflow.db'}"), path)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ALONE)
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


def test_no_text_lies_on_other_text_nor_is_cut_off(page):
    """Every line of text that is to be seen; what scrolls inside a box may lie beside it, and a sticky head over it."""
    unfold(page)
    found = page.evaluate(
        """() => {
        const lines = [], walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
        while (walk.nextNode()) {
            const text = walk.currentNode, holder = text.parentElement;
            if (!text.textContent.trim() || holder.closest("title, desc")) continue;
            const range = document.createRange(); range.selectNodeContents(text);
            const cell = holder.closest("th, td");
            for (const box of range.getClientRects()) if (box.width > 1) lines.push({box, holder, cell});
        }
        const told = line => line.holder.textContent.slice(0, 70);
        const cut = lines.filter(({box, cell, holder}) => {
            const around = (cell ?? holder.closest("svg") ?? holder).getBoundingClientRect();
            return box.left < around.left - 1 || box.right > around.right + 1;
        }).map(told);
        lines.sort((one, other) => one.box.top - other.box.top);
        const over = [];
        lines.forEach((one, number) => {
            for (let next = number + 1; next < lines.length; next++) {
                const other = lines[next];
                if (other.box.top > one.box.bottom - 2) break;
                if (other.holder === one.holder) continue;
                const wide = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
                const high = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
                if (wide > 1 && high > 2 && sameBox(one.holder, other.holder)) over.push([told(one), told(other)]);
            }
        });
        function sameBox(one, other) { return one.closest(".scroll") === other.closest(".scroll"); }
        return {lines: lines.length, cut, over};
        }"""
    )
    assert found["lines"] > 200
    assert (found["cut"], found["over"]) == ([], [])


def test_a_click_on_a_head_sorts_and_words_filter(page):
    table = page.locator("section > .scroll > table").filter(has_text="traffic · app · capture")
    cells = "all => all.map(one => one.textContent)"
    methods = lambda: table.locator("tbody th").evaluate_all(cells)  # noqa: E731
    before = methods()
    head = table.locator("thead th").nth(2)
    assert head.get_attribute("aria-sort") is None
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    down = table.locator("tbody tr td:nth-child(3)").evaluate_all(cells)
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    up = table.locator("tbody tr td:nth-child(3)").evaluate_all(cells)
    numbers = [text for text in down if text != "–"]
    assert numbers == sorted(numbers, reverse=True) and down[: len(numbers)] == numbers
    assert [text for text in up if text != "–"] == numbers[::-1] and up[: len(numbers)] == numbers[::-1]
    table.locator("thead button").first.click()
    assert methods() == sorted(before)
    field = page.get_by_role("searchbox")
    field.fill("Majority CAPTURE")
    shown = page.locator("main section section:visible")
    assert shown.locator("h3").evaluate_all(cells) == ["Split capture, 3 folds"]
    assert page.locator("details.run:visible").count() == 1
    field.fill("")
    assert page.locator("main section section:visible").count() == page.locator("main section section").count()


def test_without_scripts_nothing_is_missing(opened, report):
    page = opened(report, java_script_enabled=False)
    assert page.get_by_role("searchbox").count() == 0 and page.locator("thead button").count() == 0
    assert page.locator("section > .scroll > table").first.is_visible()


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
    assert page.locator("script").count() == 1 and page.locator("caption b, td em").count() == 0


def test_it_prints_with_everything_unfolded(opened, report):
    page = opened(report)
    page.emulate_media(media="print")
    assert page.locator(".confusion").first.is_visible()
    assert not page.get_by_role("navigation").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.fixture(scope="module")
def printed(results):
    """Addresses that `bench ui` prints, by the names of experiments."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("bench"), "ui", "--results", results, "--port", str(port)]
    own = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    heard = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731 (a shell's job ignores it)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=own, text=True, preexec_fn=heard, **pipes) as bench:
        try:
            lines = [bench.stdout.readline().strip().split("  ") for _ in range(2)]  # of two data sets
            yield {name: address for address, name in lines}
        finally:
            bench.send_signal(signal.SIGINT)
            out, err = bench.communicate()
    assert (bench.returncode, out) == (0, "")
    assert err.splitlines() == ["starting MLflow's server; this takes a few seconds", "Ctrl-C ends it"]


def test_captions_wrap_within_the_window(page):
    """A table may be wider than the window and scroll; its title is read without scrolling."""
    unfold(page)
    for caption in page.locator("caption span").all():
        box = caption.bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= page.viewport_size["width"]


@pytest.mark.slow
def test_the_printed_address_leads_to_the_comparison_of_two_methods(printed, opened):
    """As a user goes: the address, the runs of two methods, a mark at each, Compare."""
    address = printed["bench/traffic/app"]
    page = opened(address, viewport=SIZES["desk"])
    rows = page.locator("[role=row]")
    pair = "forest · seed 0 fold 0", "majority · seed 0 fold 0"
    for name in pair:
        row = rows.filter(has_text=name).first
        row.wait_for(timeout=120_000)
        row.get_by_role("checkbox").first.check()
    assert page.get_by_text("macro_f1", exact=True).first.is_visible()
    page.get_by_role("button", name="Compare").or_(page.get_by_role("link", name="Compare")).first.click()
    page.get_by_text("Comparing 2 Runs").wait_for(timeout=120_000)
    for told in (*pair, "macro_f1", "settings"):
        page.get_by_text(told).first.wait_for(timeout=60_000)
    home = address.partition("/#")[0]
    assert [url for url in page.asked if not url.startswith((home, "data:", "blob:"))] == []
