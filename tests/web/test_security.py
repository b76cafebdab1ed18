"""Host, sessions, origins, CSRF tokens and headers: each defence has a test that needs it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from web_client import ADDRESS, Site, csrf_of

from pulse_edge.web.access import COOKIE, Access


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as opened:
        yield opened


@pytest.fixture
def page(site: Site) -> str:
    return site.finished()


# --- who may see anything -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/r/x", "/events", "/r/x/events", "/r/x/picture/page", "/r/x/report.pdf"]
)
def test_without_a_session_nothing_is_shown(site: Site, path: str) -> None:
    answer = site.stranger().get(path)
    assert answer.status_code == 401
    assert "pulse-edge serve" in answer.text


def test_without_a_session_nothing_is_changed(site: Site, page: str) -> None:
    assert site.stranger().post(f"/r/{page}/remove").status_code == 401
    assert site.service.store.get(page).reading.state == "done"


@pytest.mark.parametrize(
    "authorization",
    ["Bearer wrong", "Bearer ", "Basic {token}", "bearer {token}x", "Bearer {token} {token}"],
)
def test_a_wrong_token_opens_nothing(site: Site, authorization: str) -> None:
    headers = {"authorization": authorization.format(token=site.access.token)}
    assert site.stranger().get("/", headers=headers).status_code == 401


def test_an_invented_cookie_opens_nothing(site: Site) -> None:
    client = site.stranger()
    client.cookies.set(COOKIE, "x" * 43)
    assert client.get("/").status_code == 401


def test_the_link_opens_the_page_once(site: Site) -> None:
    link = site.access.new_link(ADDRESS)
    first = site.stranger()
    answer = first.get(link)
    assert answer.status_code == 200
    assert 'content="0; url=/"' in answer.text
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert first.get("/").status_code == 200
    assert site.stranger().get(link).status_code == 403


def test_the_token_of_programs_is_no_link(site: Site) -> None:
    assert site.stranger().get(f"/?token={site.access.token}").status_code == 403


def test_a_session_outlives_a_kill_and_not_the_end_of_the_server(tmp_path: Path) -> None:

    with Site(tmp_path) as site:
        client = site.browser()
        cookie = client.cookies[COOKIE]
        again = Access(site.service.options.folder, site.service.store.sessions())
        assert again.of_cookie(cookie) is not None
        assert again.token == site.access.token
        site.service.store.forget_sessions()
        assert (
            Access(site.service.options.folder, site.service.store.sessions()).of_cookie(cookie)
            is None
        )


@pytest.mark.skipif(os.name != "posix", reason="rights as POSIX has them")
def test_tokens_and_uploads_are_their_owners_alone(site: Site) -> None:
    folder = site.service.options.folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("token", "link", "web.sqlite", "lock"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    for name in ("uploads", "pictures"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o700, name


# --- other web sites ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["http://evil.test:8412", "http://127.0.0.1:9999", "http://127.0.0.1.evil.test:8412"]
)
def test_a_name_that_leads_here_is_not_ours(site: Site, address: str) -> None:
    client = site.stranger(address)
    client.headers["authorization"] = f"Bearer {site.access.token}"
    assert client.get("/").status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8412", "localhost:8412", "[::1]:8412"])
def test_our_own_names_are_answered(site: Site, host: str) -> None:
    client = site.program()
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.test"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"referer": "https://evil.test/127.0.0.1:8412/"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_form_of_another_site_changes_nothing(
    site: Site, page: str, headers: dict[str, str]
) -> None:
    client = site.browser()
    form = {"csrf": csrf_of(client)}
    assert client.post(f"/r/{page}/remove", data=form, headers=headers).status_code == 403
    assert site.service.store.get(page).reading.state == "done"


@pytest.mark.parametrize("csrf", ["", "0" * 64, None])
def test_a_form_without_the_sessions_token_changes_nothing(
    site: Site, page: str, csrf: str | None
) -> None:
    client = site.browser()
    form = {} if csrf is None else {"csrf": csrf}
    form["question"] = "x"
    assert client.post(f"/r/{page}/remove", data=form).status_code == 403
    assert site.service.store.get(page).reading.state == "done"


def test_the_token_of_another_session_is_refused(site: Site, page: str) -> None:
    first, second = site.browser(), site.browser()
    form = {"csrf": csrf_of(first)}
    assert second.post(f"/r/{page}/remove", data=form).status_code == 403


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/json", "multipart/form-data; boundary=x"]
)
def test_a_body_of_another_kind_needs_the_header(site: Site, page: str, kind: str) -> None:
    client = site.browser()
    answer = client.post(f"/r/{page}/remove", content=b"{}", headers={"content-type": kind})
    assert answer.status_code == 403


def test_a_script_of_the_page_sends_the_token_in_a_header(site: Site, page: str) -> None:
    client = site.browser()
    headers = {"x-csrf-token": csrf_of(client)}
    assert client.post(f"/r/{page}/remove", headers=headers).status_code == 303
    with pytest.raises(KeyError):
        site.service.store.get(page)


def test_a_wrong_token_in_the_header_changes_nothing(site: Site, page: str) -> None:
    client = site.browser()
    headers = {"x-csrf-token": "0" * 64}
    assert client.post(f"/r/{page}/remove", headers=headers).status_code == 403
    assert site.service.store.get(page).reading.state == "done"


def test_an_upload_without_the_token_first_leaves_no_file(site: Site) -> None:
    client = site.browser()
    for form in ({}, {"csrf": "0" * 64}):
        answer = client.post("/upload", data=form, files={"file": ("a.png", b"page")})
        assert answer.status_code == 403
    assert list((site.service.options.folder / "uploads").iterdir()) == []


# --- headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/nowhere"])
def test_every_answer_carries_the_headers(site: Site, path: str) -> None:
    headers = site.browser().get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers


def test_refusals_carry_them_too(site: Site) -> None:
    for answer in (site.stranger().get("/"), site.stranger("http://evil.test").get("/")):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"


def test_names_of_uploads_are_data(site: Site) -> None:
    site.finished(name="<script>alert(1)</script>.png")
    text = site.browser().get("/").text
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text
