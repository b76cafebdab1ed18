"""A server process with the demo kit: upload, read, ask, documents, the end."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pypdfium2
import pytest
from web_server import WebServer, wait_for

from pulse_edge.report.confirmation import digest


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with WebServer(tmp_path_factory.mktemp("serve")) as running:
        yield running


@pytest.fixture(scope="module")
def read(server: WebServer) -> str:
    """The id of a page that was read."""
    id = server.upload()
    server.wait(id, "done")
    return id


def test_an_upload_is_measured_and_answered_and_logged_once(server: WebServer, read: str) -> None:
    reading = server.reading(read)
    assert reading["report"]["answers"][0]["text"] == reading["text"] != ""
    assert reading["admission"]["verdict"] == "good"
    assert {m["key"] for m in reading["measurements"]["measurements"]} >= {"rate", "qrs"}
    assert reading["checks"]
    ids = [entry.fields["id"] for entry in server.entries()]
    assert ids.count(f"{read}/0/0") == 1


def test_a_question_is_answered_after_the_report(server: WebServer, read: str) -> None:
    with server.browser() as client:
        csrf = client.get("/").text.partition('name="csrf" value="')[2][:64]
        form = {"question": "Is the rhythm regular?", "csrf": csrf}
        assert client.post(f"/r/{read}/ask", data=form).status_code == 303
    wait_for(lambda: server.reading(read)["turns"][0]["state"] == "done")
    assert f"{read}/1/0" in [entry.fields["id"] for entry in server.entries()]


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("report.pdf", b"%PDF"),
        ("report.html", b"<!doctype html>"),
        ("report.json", b'{"notice"'),
        ("picture/page", b"\x89PNG"),
        ("picture/overlay", b"\x89PNG"),
        ("picture/trace", b"\x89PNG"),
        ("picture/thumb", b"\xff\xd8\xff"),
    ],
)
def test_documents_and_pictures_of_a_page(
    server: WebServer, read: str, name: str, begins: bytes
) -> None:
    with server.program() as client:
        answer = client.get(f"/r/{read}/{name}")
    assert answer.status_code == 200
    assert answer.content.startswith(begins)


def test_the_html_report_keeps_its_style_and_runs_no_script(server: WebServer, read: str) -> None:
    with server.program() as client:
        policies = client.get(f"/r/{read}/report.html").headers.get_list("content-security-policy")
    assert len(policies) == 1
    assert "style-src 'unsafe-inline'" in policies[0]
    assert "default-src 'none'" in policies[0]
    assert policies[0].endswith("sandbox")


def test_the_fhir_bundle_holds_the_trace(server: WebServer, read: str) -> None:
    with server.program() as client:
        bundle = json.loads(client.get(f"/r/{read}/report.fhir.json").content)
    kinds = {entry["resource"]["resourceType"] for entry in bundle["entry"]}
    assert {"DiagnosticReport", "Observation", "Media"} <= kinds


def test_a_readers_form_confirms_the_report_and_the_log_has_it(server: WebServer) -> None:
    id = server.upload("confirmed.png")
    server.wait(id, "done")
    with server.browser() as client:
        csrf = client.get("/").text.partition('name="csrf" value="')[2][:64]
        form = {"csrf": csrf, "reader": "Dr Amina Diallo", "final": "yes"}
        form |= {"text-0": "changed", "edited-0": "Sinus rhythm, LBBB.", "conclusion": "LBBB."}
        assert client.post(f"/r/{id}/confirm", data=form).status_code == 303
        assert "Dr Amina Diallo" in client.get(f"/r/{id}").text
    with server.program() as client:
        report = client.get(f"/r/{id}/report.json").json()
        pdf = pypdfium2.PdfDocument(client.get(f"/r/{id}/report.pdf").content)
        bundle = client.get(f"/r/{id}/report.fhir.json").json()
    assert report["overread"].startswith("Confirmed with changes by Dr Amina Diallo, ")
    text = pdf[0].get_textpage().get_text_bounded()
    assert "ECG read by Dr Amina Diallo" in text
    assert "Sinus rhythm, LBBB." in text
    assert bundle["entry"][0]["resource"]["status"] == "final"
    entry = server.entries()[-1].fields
    assert (entry["kind"], entry["reader"]) == ("confirmation", "Dr Amina Diallo")
    assert entry["confirmation_sha256"] == digest(report["confirmation"])


def test_a_file_that_is_no_page_fails_with_the_reason(server: WebServer) -> None:
    reading = server.reading(server.upload("letter.png", b"no picture"))
    assert (reading["state"], reading["exit_code"]) == ("failed", 1)
    assert "letter.png: is text or XML" in reading["error"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_keeps_the_queue(tmp_path: Path, number: int) -> None:
    server = WebServer(tmp_path, "--no-measure")
    with server:
        ids = [server.upload(f"{n}.png") for n in range(2)]
        assert server.kill(number) == 128 + number
    with server:
        for n, id in enumerate(ids):
            assert server.wait(id, "done")["name"] == f"{n}.png"
    assert len({entry.fields["id"] for entry in server.entries()}) == len(server.entries()) == 2
