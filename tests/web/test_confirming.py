"""A reader's confirmation of a served page, and the documents that say so."""

from __future__ import annotations

import json
from pathlib import Path

from web_server import WebServer

from pulse_edge.audit_log.confirmations import is_confirmation
from pulse_edge.report.confirmation import UNCONFIRMED


def test_documents_of_a_served_page_say_who_confirmed_it(tmp_path: Path) -> None:
    with WebServer(tmp_path) as server:
        id = server.upload()
        server.wait(id, "done")
        with server.program() as client:
            line = json.loads(client.get(f"/r/{id}/report.json").text)["overread"]
            assert line == UNCONFIRMED
        with server.browser() as browser:
            page = browser.get(f"/r/{id}").text
            csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
            form = {"csrf": csrf, "reader": "Dr Diallo", "text-0": "agreed", "final": "yes"}
            for number, name in enumerate(("Dr Diallo", "Dr B")):
                form |= {"reader": name, "corrects": str(number)}
                answer = browser.post(f"/r/{id}/confirm", data=form)
                assert answer.status_code == 303, answer.text
        with server.program() as client:
            shown = json.loads(client.get(f"/r/{id}/report.json").text)
            assert shown["overread"].startswith("Confirmed without change by Dr B")
            assert "replaces what Dr Diallo confirmed" in shown["overread"]
            fhir = client.get(f"/r/{id}/report.fhir.json").text
            assert '"amended"' in fhir
            assert client.get(f"/r/{id}/report.pdf").content.startswith(b"%PDF-")
        readers = [e.fields["reader"] for e in server.entries() if is_confirmation(e)]
        assert readers == ["Dr Diallo", "Dr B"]
