"""A browser at a server with the demo kit, from the upload to the printed report."""

from __future__ import annotations

import re
import webbrowser

import pytest
from browsers import Complaints, chromium
from web_server import DEADLINE, PAGE, WebServer

from pulse_edge.web.server import open_link

pytest.importorskip("playwright", reason="needs Playwright, of the development tools")


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with WebServer(tmp_path_factory.mktemp("served")) as server:
        yield server


def session(browser, server: WebServer, **options):
    """A page of a new context, which the server's link has given a session."""
    context = browser.new_context(**options)
    context.set_default_timeout(DEADLINE * 1000)
    page = context.new_page()
    page.complaints = Complaints(context)
    page.goto(server.link())
    page.wait_for_url("**/")
    return page


@pytest.fixture
def page(browser, server: WebServer):
    page = session(browser, server)
    yield page
    page.context.close()


def upload(page) -> None:
    """Choose a file, which sends it, and wait for the page of its reading."""
    page.goto("/".join(page.url.split("/")[:3]) + "/")
    page.get_by_label("Choose a file").set_input_files(PAGE)
    page.wait_for_url("**/r/*")


def read(page) -> None:
    """Wait until the answer is whole."""
    page.get_by_role("link", name="Review and confirm").wait_for()


def test_the_file_that_opens_the_page_opens_a_session(
    browser, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    open_link(server.folder, server.link())
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(opened[0])
        page.wait_for_url("http://**/")
        page.get_by_label("Choose a file").wait_for(state="attached", timeout=DEADLINE * 1000)


def test_from_the_upload_to_the_confirmed_print(page) -> None:
    upload(page)
    page.get_by_role("heading", name="Good picture").wait_for()
    page.get_by_role("heading", name="Measured on the trace, without the model").wait_for()
    read(page)
    first = page.locator("main h2").first.inner_text()
    assert "Contradictions: look here first" in first
    assert (
        page.locator(".tile", has_text="QRS duration").inner_text().split("\n")[1].startswith("1")
    )
    assert page.get_by_text("was not judged: this kit is not calibrated").is_visible()
    assert page.locator("mark").count() > 3

    page.get_by_label("Question").fill("Is this a normal ECG?")
    page.get_by_label("Question").press("Enter")
    page.get_by_text("Is this a normal ECG?").wait_for()
    page.locator("[data-turn='1']", has_text=re.compile(r"\w")).wait_for()

    page.locator('textarea[name="edited-0"]').fill("Sinus rhythm. Left bundle branch block.")
    page.get_by_label("Your conclusion").fill("LBBB, known since 2019.")
    page.get_by_label("Reader's name").fill("Dr Amina Diallo")
    page.get_by_label("I have read the ECG myself.").check()
    page.get_by_role("button", name="Confirm").click()
    page.get_by_text("Confirmed by Dr Amina Diallo").first.wait_for()
    assert page.get_by_role("heading", name="The reader's conclusion").is_visible()

    link = page.get_by_role("link", name="Print (PDF)").first.get_attribute("href")
    printed = page.request.get(page.url.split("/r/")[0] + link)
    assert printed.headers["content-type"] == "application/pdf"
    assert printed.body().startswith(b"%PDF-")
    assert page.complaints.lines == []


def test_a_reader_who_forgets_something_loses_nothing(page) -> None:
    upload(page)
    read(page)
    page.get_by_label("Your conclusion").fill("Known LBBB.")
    page.get_by_label("Reader's name").fill("Dr Diallo")
    page.locator("form[data-confirm]").evaluate("form => form.submit()")  # past the browser's check
    page.get_by_role("heading", name="Not saved").wait_for()
    assert page.get_by_label("Your conclusion").input_value() == "Known LBBB."
    assert page.get_by_label("Reader's name").input_value() == "Dr Diallo"
    page.locator(".failed:focus").wait_for()


def test_a_page_that_is_loaded_again_in_the_middle_catches_up(page) -> None:
    upload(page)
    page.reload()
    page.get_by_role("heading", name="Good picture").wait_for()
    page.reload()
    read(page)
    assert page.get_by_role("heading", name="The model's text").is_visible()


def test_two_tabs_follow_two_pages(page) -> None:
    upload(page)
    other = page.context.new_page()
    other.goto(page.url)
    upload(other)
    assert page.url != other.url
    read(other)
    page.bring_to_front()
    read(page)
    other.goto("/".join(other.url.split("/")[:3]) + "/")
    assert other.locator(".entry").count() >= 2


def test_the_list_follows_what_other_tabs_upload(page) -> None:
    before = page.locator(".entry").count()
    other = page.context.new_page()
    other.goto(page.url)
    upload(other)
    page.bring_to_front()
    page.locator(".entry").nth(before).wait_for()


def test_a_pasted_and_a_dropped_picture_are_sent(page) -> None:
    picture = PAGE.read_bytes()
    for event in ("paste", "drop"):
        page.goto("/".join(page.url.split("/")[:3]) + "/")
        page.evaluate(
            """([event, bytes]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], event + ".png", {type: "image/png"}));
                const made = event === "paste"
                    ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
                    : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
                document.querySelector(".drop").dispatchEvent(made);
            }""",
            [event, list(picture)],
        )
        page.wait_for_url("**/r/*")
        assert page.get_by_role("heading", level=1).inner_text() == f"{event}.png"


def test_a_file_that_is_no_picture_says_what_to_do(page, tmp_path) -> None:
    broken = tmp_path / "<b>notes.png"
    broken.write_bytes(b"no picture")
    page.get_by_label("Choose a file").set_input_files(broken)
    page.get_by_role("heading", name="This page was not read").wait_for()
    assert page.get_by_role("heading", level=1).inner_text() == "<b>notes.png"
    page.get_by_text("Remove this page").click()
    page.get_by_role("button", name="Remove for good").click()
    page.get_by_role("heading", name="New ECG page").wait_for()


def test_everything_works_without_scripts(browser, server: WebServer) -> None:
    page = session(browser, server, java_script_enabled=False)
    page.get_by_label("Choose a file").set_input_files(PAGE)
    page.get_by_role("button", name="Send the page").click()
    page.get_by_role("heading", name="example_page.png").wait_for()
    for _ in range(200):
        if page.get_by_role("link", name="Review and confirm").count():
            break
        present = page.get_by_role("link", name="Show the present state").first
        page.wait_for_timeout(500)  # nothing changes on a page without scripts
        page.goto(server.address + present.get_attribute("href"))
    page.get_by_label("Agree", exact=True).last.check()
    page.get_by_label("Reader's name").fill("Dr Diallo")
    page.get_by_label("I have read the ECG myself.").check()
    page.get_by_role("button", name="Confirm").click()
    page.get_by_text("Confirmed by Dr Diallo").first.wait_for()
    page.context.close()
