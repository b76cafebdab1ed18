"""The pages, around a service without workers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from checkout import ROOT
from fake_pages import (
    CONFIRMATION,
    FakeService,
    admission,
    client,
    readings,
    report,
    token,
)
from reports import EVIL

STATES = (
    "checking",
    "refused",
    "waiting",
    "reading",
    "usable",
    "done",
    "confirmed",
    "failed",
)
STATIC = ROOT / "pulse_edge" / "web" / "static"


@pytest.fixture(scope="module")
def every_state():
    return readings()


@pytest.fixture
def service(every_state):
    return FakeService(every_state)


@pytest.fixture
def browser(service: FakeService, tmp_path: Path):
    return client(service, tmp_path / "web")


def words(page: str) -> str:
    """The text of a page without markup, on one line."""
    without = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", without)).split())


@pytest.mark.parametrize("state", STATES)
def test_each_state_of_a_reading_has_a_page(browser, state: str) -> None:
    answer = browser.get(f"/r/{state}")
    assert answer.status_code == 200
    assert "<h1" in answer.text
    assert "ward 3, bed 12.jpg" in words(answer.text)


@pytest.mark.parametrize("path", ["/", "/history", "/about", "/r/done", "/r/refused", "/r/none"])
def test_no_page_holds_a_script_or_a_style_of_its_own(browser, path: str) -> None:
    page = browser.get(path).text
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=", page) == []


def test_contradictions_stand_above_everything_else(browser) -> None:
    page = browser.get("/r/done").text
    first = page.index('id="contradictions"')
    for later in ('id="measured"', 'id="findings"', 'id="text"', 'id="picture-heading"'):
        assert first < page.index(later)
    assert "the trace shows QRS duration 170 ms (± 24)" in words(page)


def test_a_reading_is_unconfirmed_until_a_reader_confirms_it(browser) -> None:
    marked = "Unconfirmed: requires physician overread"
    assert marked in words(browser.get("/r/done").text)
    confirmed = words(browser.get("/r/confirmed").text)
    assert marked not in confirmed
    assert "Confirmed by Dr Amina Diallo" in confirmed


def test_a_text_that_streams_is_unconfirmed_too(browser) -> None:
    page = words(browser.get("/r/reading").text)
    assert "Unconfirmed: requires physician overread Ventricular rate 81 bpm." in page


def test_the_readers_conclusion_stands_above_what_the_software_says(browser) -> None:
    page = browser.get("/r/confirmed").text
    assert page.index(CONFIRMATION["conclusion"]) < page.index('id="contradictions"')


def test_the_readers_version_stands_with_each_finding_and_text(browser) -> None:
    page = words(browser.get("/r/confirmed").text)
    assert re.search(r"ST elevation[^%]* 91 % calibrated ! Changed by the reader: absent", page)
    assert "Changed by the reader: Change: use the edited text" in page
    before, _, _after = page.partition("Findings, by urgency")
    assert "Sinus rhythm with LBBB." in before


def test_a_list_names_no_urgent_finding_that_the_reader_rejected(service, browser) -> None:
    urgent = "ST elevation"
    assert urgent in words(browser.get("/history").text)
    service.stored = {"confirmed": service.stored["confirmed"]}
    shown = words(browser.get("/history").text)
    assert "Confirmed by Dr Amina Diallo" in shown
    assert urgent not in shown


@pytest.mark.parametrize("path", ["/history", "/r/confirmed"])
def test_a_reading_that_was_rejected_as_a_whole_is_not_called_confirmed(
    service, browser, path
) -> None:
    rejected = replace(
        service.stored["confirmed"], confirmation={**CONFIRMATION, "overall": "rejected"}
    )
    service.stored = {"confirmed": rejected}
    shown = words(browser.get(path).text)
    assert "Rejected as a whole: do not use it. (Dr Amina Diallo)" in shown
    assert "Confirmed" not in shown


def test_answers_to_questions_stay_unconfirmed(service, browser) -> None:
    turns = service.stored["usable"].turns
    service.stored["confirmed"] = replace(service.stored["confirmed"], turns=turns[:1])
    shown = words(browser.get("/r/confirmed").text)
    assert "Is the ST segment elevated? ! Unconfirmed Yes, in V2." in shown


def test_measurements_stand_next_to_the_models_words_with_a_verdict(browser) -> None:
    page = words(browser.get("/r/done").text)
    assert "QRS duration 170 ms ± 24 QRS duration 130 ms ✗ contradicted" in page
    assert "PR interval 138 ms ± 25 PR interval 130 ms ✓ supported" in page


def test_measurements_stand_on_the_page_before_the_model_has_answered(browser) -> None:
    page = words(browser.get("/r/reading").text)
    assert "QRS duration 170 ms ± 24" in page
    assert "PR inter" in page
    assert "about 41 s left" in page


def test_findings_stand_by_urgency_with_calibrated_probabilities(browser) -> None:
    page = words(browser.get("/r/done").text)
    assert page.index("Act now ST elevation present 91 % calibrated") < page.index("Soon")
    assert "atrial fibrillation uncertain 48 % calibrated" in page


def test_findings_without_calibration_have_no_probability(browser) -> None:
    page = browser.get("/r/usable").text
    section = words(page[page.index('id="findings"') : page.index('id="text"')])
    assert "Not calibrated for this kit" in section
    assert "%" not in section


def test_the_verdict_on_words_of_the_text_is_a_word_and_a_symbol(browser) -> None:
    page = browser.get("/r/done").text
    (mark,) = re.findall(r'<mark class="contradicted".*?</mark>', page)
    assert "QRS duration 130 ms" in mark
    assert "✗" in mark
    assert "(contradicted)" in mark


def test_names_and_texts_of_others_stay_text(service: FakeService, browser) -> None:
    shown = report()
    shown["answers"][0]["text"] = EVIL
    shown["contradictions"][0]["text"] = EVIL
    shown["findings"][0]["name"] = EVIL
    shown["notice"] = EVIL
    broken = {"check": "no such check", "value": 1, "unit": "", "threshold": None, "advice": EVIL}
    service.stored["evil"] = replace(
        service.stored["done"],
        id="evil",
        name=EVIL,
        report=shown,
        admission=admission("usable", broken),
        confirmation={**CONFIRMATION, "reader": EVIL, "conclusion": EVIL},
    )
    service.stored["bad"] = replace(service.stored["failed"], id="bad", name=EVIL, error=EVIL)
    for path in ("/r/evil", "/r/bad", "/", "/history?q=%3Cscript%3E"):
        page = browser.get(path).text
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "\x1b" not in page
        assert "\u202e" not in page


def test_a_page_says_why_its_answer_cannot_be_logged(service, browser, monkeypatch) -> None:
    facts = {**service.about(), "log_error": "entries.log: the disk is full."}
    monkeypatch.setattr(service, "about", lambda: facts)
    assert "the disk is full" in words(browser.get("/r/reading").text)


def test_a_refused_picture_shows_the_one_thing_to_do_better_first(browser) -> None:
    page = browser.get("/r/refused").text
    text = words(page)
    assert "Hold still, tap on the trace to focus, and take it again." in text
    assert text.index("Hold still") < text.index("Turn the lamp")
    assert 'action="/r/refused/force"' in page
    assert 'action="/upload"' in page


def test_advice_is_shown_in_the_chosen_language(browser) -> None:
    page = words(browser.get("/r/refused?lang=sw").text)
    assert "Tuliza mkono, gusa mstari wa ECG ili kulenga, kisha piga tena." in page
    assert "ukingo wa mstari wa ECG una upana wa mm 1.4" in page


def test_advice_that_the_catalogue_does_not_know_stays_as_it_came(service, browser) -> None:
    other = {"check": "glare", "value": 0.04, "unit": "", "threshold": 0.01}
    other |= {"advice": "The recording shows 3 s of V1 only."}
    service.stored["usable"] = replace(
        service.stored["usable"], admission=admission("usable", other)
    )
    page = browser.get("/r/usable?lang=fr").text
    assert re.search(r'<span lang="en" dir="ltr">The recording shows 3 s of V1 only.</span>', page)


@pytest.mark.parametrize("action", ["stop", "force", "retry", "remove"])
def test_a_form_does_what_it_says_and_comes_back(service, browser, action: str) -> None:
    answer = browser.post(f"/r/done/{action}?lang=fr", data={"csrf": token(browser)})
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/?" if action == "remove" else "/r/done?lang=fr")
    assert service.calls == [(action, "done")]


def test_a_question_is_asked(service: FakeService, browser) -> None:
    answer = browser.post(
        "/r/done/ask", data={"csrf": token(browser), "question": "Is it <b>acute</b>?"}
    )
    assert answer.status_code == 303
    assert service.calls == [("ask", "done", "Is it <b>acute</b>?")]
    assert "Is it &lt;b&gt;acute&lt;/b&gt;?" in browser.get("/r/done").text


def test_a_form_without_the_sessions_token_does_nothing(service: FakeService, browser) -> None:
    answer = browser.post("/r/done/ask", data={"question": "Is it acute?"})
    assert answer.status_code == 403
    assert service.calls == []


def test_a_confirmation_holds_what_the_reader_decided(service: FakeService, browser) -> None:
    fields = {
        "csrf": token(browser),
        "finding-STE": "absent",
        "finding-LBBB": "agreed",
        "text-0": "agreed",
        "edited-0": report()["answers"][0]["text"],
        "reader": "Dr Amina Diallo",
        "final": "yes",
    }
    answer = browser.post("/r/done/confirm", data=fields)
    assert answer.status_code == 303
    ((_, _, sent),) = service.calls
    sent = json.loads(sent)
    assert sent["reader"] == "Dr Amina Diallo"
    assert sent["findings"] == [
        {"statement": "LBBB", "decision": "agreed"},
        {"statement": "STE", "decision": "rejected", "verdict": "absent"},
    ]
    assert sent["texts"] == [{"answer": 0, "decision": "agreed"}]


def test_a_reader_who_has_not_read_the_ecg_confirms_nothing(service, browser) -> None:
    fields = {"csrf": token(browser), "text-0": "agreed", "reader": "Dr Amina Diallo"}
    answer = browser.post("/r/done/confirm", data=fields)
    assert answer.status_code == 422
    assert "read the ECG yourself first" in words(answer.text)
    assert service.calls == []


@pytest.mark.parametrize(("state", "number"), [("done", 0), ("confirmed", 1)])
def test_the_form_names_the_confirmation_that_it_corrects(browser, state, number) -> None:
    assert f'name="corrects" value="{number}"' in browser.get(f"/r/{state}").text


def test_long_texts_in_any_alphabet_can_be_confirmed(service: FakeService, browser) -> None:
    conclusion = "\u0939" * 20_000
    fields = {"csrf": token(browser), "reader": "Dr", "final": "yes", "conclusion": conclusion}
    assert browser.post("/r/done/confirm", data=fields).status_code == 303
    ((_, _, sent),) = service.calls
    assert json.loads(sent)["conclusion"] == conclusion


def test_a_confirmation_that_is_not_complete_comes_back_as_it_was(service, browser) -> None:
    fields = {"csrf": token(browser), "conclusion": "LBBB, known.", "finding-STE": "absent"}
    fields |= {"final": "yes"}
    answer = browser.post("/r/done/confirm", data=fields)
    assert answer.status_code == 422
    assert "the reader's name is empty" in words(answer.text)
    assert "LBBB, known." in answer.text
    assert re.search(r'name="finding-STE" value="absent"[^>]*checked', answer.text)
    assert service.calls == []


def test_what_must_be_read_first_is_there_before_the_text_is_whole(service, browser) -> None:
    first = ("DEMONSTRATION KIT - NOT FOR PATIENTS",)
    service.stored["reading"] = replace(service.stored["reading"], notices=first)
    page = browser.get("/r/reading").text
    assert page.index(first[0]) < page.index("data-stream")


def test_a_reading_can_be_stopped_while_it_waits_or_is_read(browser) -> None:
    for state in ("waiting", "reading"):
        assert f'action="/r/{state}/stop"' in browser.get(f"/r/{state}").text


def test_an_answer_to_a_question_shows_how_far_it_is(service: FakeService, browser) -> None:
    progress = service.stored["reading"].progress
    service.stored["usable"] = replace(service.stored["usable"], progress=progress)
    assert "Writing the text about 41 s left" in words(browser.get("/r/usable").text)


def test_the_history_is_sorted_by_day_and_can_be_searched(service: FakeService, browser) -> None:
    other = replace(
        service.stored["done"], id="old", name="clinic.png", created="2026-11-20T12:00:00Z"
    )
    service.stored = {"old": other, **service.stored}
    page = browser.get("/history").text
    assert page.index("2026-11-28") < page.index("2026-11-20")
    matches = words(browser.get("/history?q=clinic").text)
    assert "clinic.png" in matches
    assert "ward 3" not in matches
    assert "No page matches." in words(browser.get("/history?q=nothing+like+it").text)


def test_a_long_history_leads_to_older_pages(service: FakeService, browser) -> None:
    base = service.stored["done"]
    service.stored = {str(n): replace(base, id=str(n), name=f"page {n}.png") for n in range(60)}
    page = browser.get("/history").text
    (older,) = re.findall(r'href="(/history\?[^"]*before=[^"]+)"', page)
    assert "page 10.png" in page
    assert "page 9.png" not in page
    assert "page 9.png" in browser.get(unescape(older)).text


def test_a_page_that_is_gone_says_so(browser) -> None:
    answer = browser.get("/r/none", headers={"accept": "text/html"})
    assert answer.status_code == 404
    assert "This page does not exist" in words(answer.text)


def test_a_picture_that_is_no_longer_stored_is_not_shown(service: FakeService, browser) -> None:
    service.stored["done"] = replace(service.stored["done"], pictures=())
    page = browser.get("/r/done").text
    assert "/picture/" not in page
    assert "The picture is no longer stored." in words(page)


def test_the_language_is_the_browsers_unless_one_is_chosen(browser) -> None:
    french = browser.get("/", headers={"accept-language": "fr-CH, en;q=0.5"}).text
    assert '<html lang="fr" dir="ltr">' in french
    arabic = browser.get("/?lang=ar", headers={"accept-language": "fr"}).text
    assert '<html lang="ar" dir="rtl">' in arabic
    assert 'href="/history?lang=ar"' in arabic


def test_a_translation_without_review_says_so(browser) -> None:
    assert "n'a pas été relue par un locuteur natif" in words(browser.get("/?lang=fr").text)
    assert "native speaker" not in words(browser.get("/?lang=en").text)


def test_the_models_words_are_marked_as_english(browser) -> None:
    page = browser.get("/r/done?lang=ar").text
    assert re.search(r'<p class="answer" lang="en" dir="ltr">\s*<mark', page)
    assert "النص بالإنجليزية كما كتبه النموذج." in words(page)


def test_a_page_weighs_less_than_300_kilobytes_without_pictures(browser) -> None:
    files = sum(path.stat().st_size for path in STATIC.iterdir())
    assert files + len(browser.get("/r/done?lang=hi").content) < 300_000


def test_calipers_get_the_measured_scale(browser) -> None:
    page = browser.get("/r/done").text
    scale = dict(re.findall(r'data-(across|down|speed|gain)="([\d.]+)"', page))
    assert float(scale["across"]) == pytest.approx(5.911)
    assert (float(scale["speed"]), float(scale["gain"])) == (25, 10)


def test_a_page_without_a_grid_has_no_calipers(service: FakeService, browser) -> None:
    without = admission()
    without["grid"] = {"pixels_per_mm": None, "across": None, "down": None}
    service.stored["done"] = replace(service.stored["done"], admission=without)
    assert "data-calipers" not in browser.get("/r/done").text
