"""The pages in a browser, around a service without workers."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from browsers import Complaints, axe_source, chromium, violations
from fake_pages import FakeService, app_and_cookie, readings, serving

from pulse_edge.web.access import COOKIE

pytest.importorskip("playwright", reason="needs Playwright, of the development tools")
PATHS = (
    "/",
    "/history",
    "/history?q=nothing",
    "/about",
    "/r/none",
    "/r/checking",
    "/r/refused",
    "/r/waiting",
    "/r/reading",
    "/r/usable",
    "/r/done",
    "/r/confirmed",
    "/r/failed",
)
PHONE = {"width": 320, "height": 640}


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def every_state():
    return readings()


class Site:
    """A served fake service, and contexts of a browser with its session."""

    def __init__(self, browser, service: FakeService, address: str, loop, cookie: str) -> None:
        self.browser, self.service, self.address = browser, service, address
        self.loop, self.cookie = loop, cookie

    def open(self, path: str, **options):
        context = self.browser.new_context(base_url=self.address, **options)
        context.set_default_timeout(20_000)
        context.add_cookies([{"name": COOKIE, "value": self.cookie, "url": self.address}])
        page = context.new_page()
        page.complaints = Complaints(context)
        page.goto(path)
        return page

    def change(self, id: str, **fields) -> None:
        changed = replace(self.service.stored[id], **fields)
        self.loop.call_soon_threadsafe(self.service.change, changed)


@pytest.fixture
def site(browser, every_state, tmp_path):
    service = FakeService(every_state)
    hosts: set[str] = set()
    app, cookie = app_and_cookie(service, tmp_path / "web", hosts=hosts)
    with serving(app) as (address, loop):
        hosts.add(address.removeprefix("http://"))
        yield Site(browser, service, address, loop, cookie)


@pytest.mark.parametrize(
    ("name", "options", "query"),
    [
        ("light", {}, ""),
        ("dark", {"color_scheme": "dark"}, ""),
        ("Arabic", {}, "lang=ar"),
        ("on a phone", {"viewport": PHONE}, ""),
    ],
)
def test_axe_finds_no_violation(site: Site, name: str, options: dict, query: str) -> None:
    axe_source()
    page, violated = site.open("/about", **options), {}
    for path in PATHS:
        page.goto(path + ("&" if "?" in path else "?") + query if query else path)
        violated[path] = violations(page)
    assert {path: problems for path, problems in violated.items() if problems} == {}


def test_no_page_breaks_its_own_policy_or_throws(site: Site) -> None:
    page = site.open("/about")
    for path in (p for p in PATHS if p != "/r/none"):
        page.goto(path)
        page.wait_for_timeout(100)
    assert page.complaints.lines == []


@pytest.mark.parametrize("language", ["en", "fr", "hi", "ar", "sw"])
def test_nothing_is_wider_than_a_narrow_screen(site: Site, language: str) -> None:
    page = site.open("/about", viewport=PHONE)
    for path in PATHS:
        page.goto(f"{path}{'&' if '?' in path else '?'}lang={language}")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path


def test_text_and_progress_follow_the_model(site: Site) -> None:
    page = site.open("/r/reading")
    page.get_by_text("Sinus rhythm. PR inter").wait_for()
    before = site.service.stored["reading"]
    progress = replace(before.progress, stage="findings", done=3, total=30, seconds_left=200.0)
    site.change("reading", text="Sinus rhythm. Abnormal ECG.", progress=progress)
    page.get_by_text("Sinus rhythm. Abnormal ECG.").wait_for()
    page.get_by_text("about 3 min left").wait_for()
    assert page.locator("[data-stage]").inner_text() == "Judging findings"
    assert page.locator("progress").get_attribute("max") == "30"


def test_the_result_comes_without_loading_the_page_again(site: Site) -> None:
    page = site.open("/r/reading")
    page.get_by_label("Question").fill("Is it acute?")
    page.get_by_label("Question").focus()
    done = site.service.stored["done"]
    site.change("reading", state="done", progress=None, text="", report=done.report)
    page.get_by_role("heading", name="Contradictions: look here first").wait_for()
    page.get_by_role("link", name="Review and confirm").wait_for()
    assert page.get_by_label("Question").input_value() == "Is it acute?"
    assert page.evaluate("document.activeElement.id") == "question"
    assert page.locator("#announce").inner_text() == "The reading is complete."
    assert page.title().startswith("Read: ")


def test_the_verdict_on_the_picture_is_announced(site: Site) -> None:
    page = site.open("/r/checking")
    refused = site.service.stored["refused"]
    site.change("checking", state="refused", admission=refused.admission, error=refused.error)
    page.get_by_role("heading", name="This picture is not fit to be read").wait_for()
    assert "This picture is not fit to be read" in page.locator("#announce").inner_text()


def test_a_readers_choices_survive_what_another_tab_does(site: Site) -> None:
    page = site.open("/r/done")
    page.get_by_role("group", name="ST elevation").get_by_label("It is absent").check()
    page.get_by_label("Reader's name").fill("Dr Diallo")
    site.change("done", turns=site.service.stored["usable"].turns)
    page.get_by_text("Is the ST segment elevated?").wait_for()
    assert page.get_by_role("group", name="ST elevation").get_by_label("It is absent").is_checked()
    assert page.get_by_label("Reader's name").input_value() == "Dr Diallo"


def test_typing_an_edited_text_chooses_the_change(site: Site) -> None:
    page = site.open("/r/done")
    page.locator('textarea[name="edited-0"]').fill("Sinus rhythm with LBBB.")
    assert page.get_by_label("Change: use the edited text").is_checked()


def test_a_whole_rejection_needs_no_single_decision(site: Site) -> None:
    page = site.open("/r/done")
    page.get_by_label("Reject the whole reading").check()
    page.get_by_label("Reader's name").fill("Dr Diallo")
    page.get_by_label("I have read the ECG myself.").check()
    page.get_by_role("button", name="Confirm").click()
    page.get_by_text("Rejected as a whole: do not use it. (Dr Diallo)").first.wait_for()
    assert '"overall": "rejected"' in site.service.calls[-1][2]


def caliper_line(page) -> dict[str, float]:
    text = page.locator("[data-caliper-result]").inner_text()
    ms, _bpm, mv = re.findall(r"(\d+(?:\.\d+)?) (?:ms|bpm|mV)", text)
    return {"ms": float(ms), "mv": float(mv)}


def test_calipers_measure_the_calibration_pulse_at_every_zoom(site: Site) -> None:
    page = site.open("/r/done", viewport={"width": 1366, "height": 900})
    page.get_by_role("button", name="Calipers").click()
    assert caliper_line(page) == {"ms": 800, "mv": 1.0}
    first, second = page.locator(".box:visible .point").all()
    frame = page.locator("[data-pane=trace] [data-frame]").bounding_box()
    scale = frame["width"] / 1650
    corners = ((93, 398), (127, 339))  # of the calibration pulse: 5 mm wide, 10 mm = 1 mV high
    for point, (x, y) in zip((first, second), corners, strict=True):
        drag(page, point, frame["x"] + x * scale, frame["y"] + y * scale)
    measured = caliper_line(page)
    assert measured["ms"] == pytest.approx(34 / 5.911 / 25 * 1000, abs=12)
    assert measured["mv"] == pytest.approx(59 / 5.912 / 10, abs=0.05)
    page.get_by_role("button", name="Zoom in").click()
    assert caliper_line(page) == measured


def drag(page, point, x: float, y: float) -> None:
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(x, y, steps=4)
    page.mouse.up()


def test_calipers_move_by_keyboard_a_quarter_of_a_millimetre_at_a_time(site: Site) -> None:
    page = site.open("/r/done")
    page.get_by_role("button", name="Calipers").press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == (
        "First caliper point"
    )
    page.keyboard.press("ArrowRight")
    assert caliper_line(page) == {"ms": 790, "mv": 1.0}
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowDown")
    assert caliper_line(page) == {"ms": 590, "mv": 0.97}


def test_the_picture_zooms_and_moves_by_keyboard(site: Site) -> None:
    page = site.open("/r/done")
    frame = page.locator("[data-pane=trace] [data-frame]")
    sheet = frame.locator("[data-sheet]")
    frame.focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    moved = sheet.evaluate("e => e.style.transform")
    assert "scale(1.5)" in moved
    page.keyboard.press("0")
    assert sheet.evaluate("e => e.style.transform") == ""


def test_the_original_can_stand_beside_the_trace(site: Site) -> None:
    page = site.open("/r/done", viewport={"width": 1600, "height": 900})
    page.get_by_label("Both", exact=True).check()
    left, right = (page.locator(f"[data-pane={p}]").bounding_box() for p in ("trace", "page"))
    assert left["x"] + left["width"] <= right["x"]
    assert left["y"] == right["y"]


def test_everything_can_be_reached_by_keyboard(site: Site) -> None:
    page = site.open("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    names = []
    for _ in range(14):
        page.keyboard.press("Tab")
        names.append(
            page.evaluate(
                "(e => (e.closest('label') ?? e).textContent.trim())(document.activeElement)"
            )
        )
    assert "Choose a file" in names
    assert "Take a photo" in names


def test_pages_say_so_while_the_server_is_away(site: Site) -> None:
    page = site.open("/r/reading")
    page.context.route("**/events", lambda route: route.abort())
    page.reload()
    page.locator("[data-lost-notice]").wait_for()


def test_without_scripts_the_present_state_is_one_link_away(site: Site) -> None:
    page = site.open("/r/reading", java_script_enabled=False)
    done = site.service.stored["done"]
    site.change("reading", state="done", progress=None, text="", report=done.report)
    page.get_by_role("link", name="Show the present state").first.click()
    assert page.get_by_role("heading", name="Contradictions: look here first").is_visible()
    page.get_by_label("Question").fill("Is it acute?")
    page.get_by_role("button", name="Ask").click()
    assert page.get_by_text("Is it acute?").is_visible()
