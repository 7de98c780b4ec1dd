"""The gate's report in a real browser: what is drawn is what the evidence says, and nothing else happens."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from integration.report_page import CANDIDATE, CONTRASTS, HOSTILE, LOST, make_report, rectangles, scale
from searchops_sandbox.chromium import ensure_chromium, launch_flags

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

    from integration.report_page import Report

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

WIDTHS = (360, 1400)
PIXELS = 1.5
"""How far a mark may stand from where its number belongs."""
_WATCH = """window.refused = [];
document.addEventListener('securitypolicyviolation', event => window.refused.push(event.violatedDirective))"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return make_report(tmp_path_factory.mktemp("report"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    program = await asyncio.to_thread(ensure_chromium)
    async with async_playwright() as driver:
        running = await driver.chromium.launch(executable_path=program, args=launch_flags())
        yield running
        await running.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page of its own for each test; whatever it says or asks for is kept."""
    context = await browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")
    opened = await context.new_page()
    await opened.add_init_script(_WATCH)
    yield opened
    await context.close()


async def test_nothing_is_loaded_said_or_refused(page: Page, report: Report) -> None:
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    await page.goto(report.uri)
    await page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert asked == [report.uri]
    assert said == []
    assert await page.evaluate("window.refused") == []
    assert await page.evaluate("document.querySelectorAll('script, img, link, iframe, object, form').length") == 0


async def test_the_page_lets_no_script_and_no_picture_in(page: Page, report: Report) -> None:
    await page.goto(report.uri)
    await page.evaluate(
        """() => {
          const script = document.createElement('script');
          script.textContent = 'window.taken = true';
          const image = document.createElement('img');
          image.src = 'http://127.0.0.1:9/taken.png';
          document.body.append(script, image);
          document.body.setAttribute('style', 'display: none');
        }"""
    )
    assert await page.evaluate("window.taken") is None
    await page.wait_for_function("window.refused.length >= 3")
    assert {"script-src-elem", "img-src", "style-src-attr"} <= set(await page.evaluate("window.refused"))


@pytest.mark.parametrize("width", WIDTHS)
async def test_intervals_stand_where_their_numbers_belong(page: Page, report: Report, width: int) -> None:
    await page.set_viewport_size({"width": width, "height": 900})
    await page.goto(report.uri)
    gates = {gate["gate"]: gate["figures"] for gate in report.evidence["gates"]}
    rows = {row["name"]: row for row in gates["C"]["slices"] if row["margin"] is not None and row["families"]}
    across = await scale(page, "#shares")
    for name, figures in {"A": gates["A"], **rows}.items():
        strip = f"#shares [data-row='{name}']"
        wanted = {
            "lower": figures["lower"],
            "observed": figures["lost"] / figures["families"],
            "upper": figures["upper"],
            "margin": figures["margin"],
        }
        for mark, value in wanted.items():
            (seen,) = await rectangles(page, f"{strip} [data-mark='{mark}']")
            assert seen["x"] == pytest.approx(across.at(value), abs=PIXELS), (name, mark, value)
    signed = await scale(page, "#graded")
    graded = gates["B"]
    for mark, value in {
        "lower": graded["lower"],
        "observed": graded["delta"],
        "upper": graded["upper"],
        "margin": -graded["margin"],
    }.items():
        (seen,) = await rectangles(page, f"#graded [data-row='B'] [data-mark='{mark}']")
        assert seen["x"] == pytest.approx(signed.at(value), abs=PIXELS), (mark, value)


@pytest.mark.parametrize("width", WIDTHS)
async def test_every_lost_query_has_its_mark_at_before_and_after(page: Page, report: Report, width: int) -> None:
    await page.set_viewport_size({"width": width, "height": 900})
    await page.goto(report.uri)
    plot = "[data-plot='scatter']"
    across, up = await scale(page, plot), await scale(page, plot, up=True)
    marks = {mark["data"]["query"]: mark for mark in await rectangles(page, f"{plot} [data-mark='lost']")}
    lost = {row["id"]: row for row in report.evidence["queries"] if row["lost"][1]}
    assert marks.keys() == lost.keys()
    assert len(marks) == len(LOST)
    for query, mark in marks.items():
        before, after = lost[query]["ndcg"]
        assert mark["x"] == pytest.approx(across.at(before), abs=PIXELS), query
        assert mark["y"] == pytest.approx(up.at(after), abs=PIXELS), query


async def test_bars_count_the_families_that_changed(page: Page, report: Report) -> None:
    await page.goto(report.uri)
    plot = "[data-plot='distribution']"
    across, up = await scale(page, plot), await scale(page, plot, up=True)
    bars = await rectangles(page, f"{plot} [data-mark='bar']")
    deltas = [row["delta"][1] for row in report.evidence["queries"] if abs(row["delta"][1]) >= 5e-4]
    assert sum(int(bar["data"]["count"]) for bar in bars) == len(deltas)
    for bar in bars:
        inside = [value for value in deltas if bar["left"] <= across.at(value) < bar["right"]]
        assert len(inside) == int(bar["data"]["count"])
        assert bar["top"] == pytest.approx(up.at(len(inside)), abs=PIXELS)
        assert bar["bottom"] == pytest.approx(up.at(0), abs=PIXELS)


@pytest.mark.parametrize("width", WIDTHS)
async def test_nothing_overflows_and_plots_keep_their_marks_inside(page: Page, report: Report, width: int) -> None:
    await page.set_viewport_size({"width": width, "height": 900})
    await page.goto(report.uri)
    await page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    wide = await page.evaluate(
        """() => [...document.querySelectorAll('body *:not(.skip)')].filter(one => {
          const box = one.getBoundingClientRect();
          return box.width > 1 && (box.left < -1 || box.right > innerWidth + 1);
        }).map(one => `${one.tagName} ${one.className} ${one.textContent.slice(0, 60)}`)"""
    )
    assert wide == []
    outside = await page.evaluate(
        """() => [...document.querySelectorAll('svg[data-plot]')].flatMap(plot => {
          const frame = plot.getBoundingClientRect();
          const around = plot.parentElement.getBoundingClientRect();
          const kept = frame.width > 100 && frame.left >= around.left - 1 && frame.right <= around.right + 1;
          const out = [...plot.querySelectorAll('line, rect, circle, path, text')].filter(mark => {
            const box = mark.getBoundingClientRect();
            return box.left < frame.left - 1 || box.right > frame.right + 1
              || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
          }).map(mark => `${plot.dataset.plot}: ${mark.outerHTML}`);
          return kept ? out : [`${plot.dataset.plot} is not in its place`, ...out];
        })"""
    )
    assert outside == []


async def test_hostile_texts_are_shown_as_text(page: Page, report: Report) -> None:
    await page.goto(report.uri)
    shown = await page.evaluate(
        "[...document.querySelectorAll('details[data-query]')].map(one => "
        "[one.dataset.query, one.querySelector('h3 bdi').textContent])"
    )
    texts = dict(shown)
    for number, text in HOSTILE.items():
        assert texts[f"q{number}"] == text
    assert await page.title() == f"Regressed: {CANDIDATE[:1200]}… ({len(CANDIDATE) + 14 - 1200:,} more characters)"
    body = await page.evaluate("document.body.textContent")
    assert "-11<svg/onload=alert(1)>" in body
    assert f"… ({len(CANDIDATE) - 1200:,} more characters)" in body
    hebrew = page.locator("details[data-query='q92'] h3 bdi")
    assert await hebrew.evaluate("one => getComputedStyle(one).direction") == "rtl"
    assert await hebrew.evaluate("one => getComputedStyle(one).unicodeBidi") == "isolate"


async def test_losses_stand_in_order_of_traffic_with_the_rest_told(page: Page, report: Report) -> None:
    await page.goto(report.uri)
    losses = report.evidence["losses"]
    shown = await page.evaluate("[...document.querySelectorAll('#losses details')].map(one => one.dataset.query)")
    assert shown == [entry["query"] for entry in losses[:50]]
    weights = [entry["weight"] for entry in losses]
    assert weights == sorted(weights, reverse=True)
    total = sum(row["weight"] for row in report.evidence["queries"])
    said = await page.locator("#losses > p").text_content()
    assert said is not None
    assert f"{len(losses)} queries, {sum(weights) / total:.1%} of traffic" in said
    assert f"{len(losses) - 50} more, with {sum(weights[50:]) / total:.1%} of traffic, are in the JSON" in said
    first = await page.evaluate(
        "[...document.querySelectorAll('#losses details:first-of-type tbody tr')].map(row => "
        "[...row.querySelectorAll('td')].map(cell => cell.querySelector('bdi').textContent))"
    )
    pairs = zip(losses[0]["incumbent"], losses[0]["candidate"], strict=True)
    assert first == [[before, after] for (before, _), (after, _) in pairs]


async def test_details_open_by_keyboard(page: Page, report: Report) -> None:
    await page.goto(report.uri)
    closed = page.locator("#losses details:not([open])").first
    query = await closed.get_attribute("data-query")
    await page.locator("#losses details[open] summary").last.focus()
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.parentElement.dataset.query") == query
    table = page.locator(f"details[data-query='{query}'] table")
    assert not await table.is_visible()
    await page.keyboard.press("Enter")
    assert await table.is_visible()
    await page.keyboard.press("Enter")
    assert not await table.is_visible()


@pytest.mark.parametrize("look", ["light", "dark", "print"])
async def test_every_text_can_be_read(page: Page, report: Report, look: Any) -> None:
    if look == "print":
        await page.emulate_media(media="print")
    else:
        await page.emulate_media(color_scheme=look)
    await page.goto(report.uri)
    await page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = await page.evaluate(CONTRASTS)
    assert len(found) > 1000
    assert [row for row in found if row[0] < 4.5] == []
    back = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (look != "dark")


async def test_what_is_folded_is_printed(page: Page, report: Report) -> None:
    await page.goto(report.uri)
    table = page.locator("#losses details:not([open]) table").first
    assert (await table.bounding_box() or {"height": 0})["height"] == 0
    await page.emulate_media(media="print")
    printed = await table.bounding_box()
    assert printed is not None
    assert printed["height"] > 100


async def test_headings_tables_and_plots_can_be_heard(page: Page, report: Report) -> None:
    await page.goto(report.uri)
    levels = await page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(one => Number(one.tagName[1]))")
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert await page.evaluate("document.querySelectorAll('th:not([scope])').length") == 0
    silent = "svg[data-plot]:not([aria-hidden]):not([role='img'][aria-label])"
    assert await page.evaluate("selector => document.querySelectorAll(selector).length", silent) == 0
    spoken = await page.locator("#shares [data-row='A']").get_attribute("aria-label")
    figures = next(gate["figures"] for gate in report.evidence["gates"] if gate["gate"] == "A")
    assert spoken is not None
    assert f"observed {figures['lost'] / figures['families']:.1%}" in spoken
    assert f"allowed {figures['margin']:.1%}" in spoken
