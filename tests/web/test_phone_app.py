"""A phone is paired with a running server, sends a page, and sees that page alone."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from web_server import DEADLINE, PAGE, WebServer, wait_for

from pulse_edge.web.phone_app import PAGES_PER_HOUR

AGENT = {"User-Agent": "Mozilla/5.0 (Linux; Android 15; Pixel 9)"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    phone = ("--phone", "--phone-address", "127.0.0.1", "--phone-port", "0")
    with WebServer(tmp_path_factory.mktemp("phone"), *phone) as running:
        yield running


@pytest.fixture(scope="module")
def laptop(server: WebServer) -> Iterator[httpx.Client]:
    with server.browser() as client:
        yield client


def csrf_of(page: str) -> str:
    return re.findall(r'name="csrf" value="([0-9a-f]{64})"', page)[0]


def new_link(laptop: httpx.Client) -> str:
    """A pairing link that the laptop shows."""
    csrf = csrf_of(laptop.get("/phone").text)
    assert laptop.post("/phone/new", data={"csrf": csrf}).status_code == 303
    return re.findall(r"https://[^<\s]+/p/pair\?code=[\w-]+", laptop.get("/phone").text)[0]


def phone_client(server: WebServer, link: str) -> httpx.Client:
    """A phone's browser, which trusts the certificate that the laptop shows."""
    context = ssl.create_default_context(cafile=str(server.folder / "phone-certificate.pem"))
    address = link.partition("/p/")[0]
    return httpx.Client(base_url=address, verify=context, headers=AGENT, timeout=DEADLINE)


@contextlib.contextmanager
def paired(server: WebServer, laptop: httpx.Client) -> Iterator[httpx.Client]:
    link = new_link(laptop)
    with phone_client(server, link) as client:
        assert client.get(link).status_code == 200
        answer = client.post("/p/pair", data={"code": link.partition("code=")[2]})
        assert answer.status_code == 303
        yield client


def send(client: httpx.Client, content: bytes | None = None) -> httpx.Response:
    csrf = csrf_of(client.get("/p/").text)
    file = {"file": ("IMG_1.png", PAGE.read_bytes() if content is None else content)}
    return client.post("/p/upload", data={"csrf": csrf}, files=file)


@pytest.fixture(scope="module")
def phone(server: WebServer, laptop: httpx.Client) -> Iterator[httpx.Client]:
    with paired(server, laptop) as client:
        yield client


@pytest.fixture(scope="module")
def sent(phone: httpx.Client) -> str:
    """Path of the result of a page that the phone sent."""
    answer = send(phone)
    assert answer.status_code == 303
    return answer.headers["location"]


def test_a_page_from_a_phone_is_read_and_seen_on_both_screens(
    server: WebServer, laptop: httpx.Client, phone: httpx.Client, sent: str
) -> None:
    id = sent.rpartition("/")[2]
    server.wait(id, "done")
    shown = phone.get(sent).text
    assert "Unconfirmed: requires physician overread" in shown
    assert phone.get(f"{sent}/picture/trace").content.startswith(b"\x89PNG")
    assert server.reading(id)["source"] == "phone"
    assert laptop.get(f"/r/{id}").status_code == 200


def test_a_phone_sees_no_page_of_another_phone_or_of_the_laptop(
    server: WebServer, laptop: httpx.Client, phone: httpx.Client, sent: str
) -> None:
    with paired(server, laptop) as other:
        for path in (sent, f"{sent}/state", f"{sent}/picture/thumb"):
            assert other.get(path).status_code == 404
        assert sent not in other.get("/p/").text
    of_laptop = server.upload()
    assert phone.get(f"/p/r/{of_laptop}").status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/", "/history", "/about", "/phone", "/events", "/v1/models", "/api/check", "/p/nothing"],
)
def test_the_port_of_phones_has_no_other_pages(phone: httpx.Client, path: str) -> None:
    assert phone.get(path).status_code == 404


def test_the_token_of_programs_opens_nothing_on_the_port_of_phones(
    server: WebServer, phone: httpx.Client
) -> None:
    with phone_client(server, str(phone.base_url)) as stranger:
        bearer = {"Authorization": f"Bearer {server.token()}"}
        assert stranger.get("/p/", headers=bearer).status_code == 401


def test_the_cookie_of_a_phone_opens_nothing_on_the_port_of_the_laptop(
    server: WebServer, phone: httpx.Client
) -> None:
    cookies = {name: value for _, value in phone.cookies.items() for name in (
        "pulse_edge_phone", "pulse_edge_session")}  # fmt: skip
    assert httpx.get(server.address, cookies=cookies).status_code == 401


def test_a_code_works_once_and_looking_at_it_does_not_use_it_up(
    server: WebServer, laptop: httpx.Client
) -> None:
    link = new_link(laptop)
    with phone_client(server, link) as first, phone_client(server, link) as second:
        code = {"code": link.partition("code=")[2]}
        assert [first.get(link).status_code for _ in range(3)] == [200] * 3
        assert first.post("/p/pair", data=code).status_code == 303
        assert second.get(link).status_code == 403
        assert second.post("/p/pair", data=code).status_code == 403
        assert second.get("/p/").status_code == 401


def test_a_disconnected_phone_is_a_stranger_at_once(
    server: WebServer, laptop: httpx.Client
) -> None:
    before = set(re.findall(r"/phone/([\w-]+)/revoke", laptop.get("/phone").text))
    with paired(server, laptop) as client:
        shown = laptop.get("/phone").text
        (id,) = set(re.findall(r"/phone/([\w-]+)/revoke", shown)) - before
        assert "Android 15" in shown
        page = csrf_of(client.get("/p/").text)
        csrf = csrf_of(shown)
        assert laptop.post(f"/phone/{id}/revoke", data={"csrf": csrf}).status_code == 303
        assert client.get("/p/").status_code == 401
        file = {"file": ("x.png", PAGE.read_bytes())}
        answer = client.post("/p/upload", data={"csrf": page}, files=file)
        assert answer.status_code == 401


def test_a_phone_can_disconnect_itself(server: WebServer, laptop: httpx.Client) -> None:
    with paired(server, laptop) as client:
        csrf = csrf_of(client.get("/p/").text)
        assert client.post("/p/leave", data={"csrf": csrf}).status_code == 200
        assert client.get("/p/").status_code == 401


def test_an_upload_without_the_token_of_the_form_is_refused(phone: httpx.Client) -> None:
    file = {"file": ("x.png", PAGE.read_bytes())}
    assert phone.post("/p/upload", files=file).status_code == 403
    wrong = {"csrf": "0" * 64}
    assert phone.post("/p/upload", data=wrong, files=file).status_code == 403
    assert phone.post("/p/leave").status_code == 403


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_a_form_of_another_site_is_refused(phone: httpx.Client, headers: dict[str, str]) -> None:
    csrf = {"csrf": csrf_of(phone.get("/p/").text)}
    assert phone.post("/p/leave", data=csrf, headers=headers).status_code == 403
    assert phone.get("/p/").status_code == 200


def test_a_foreign_name_of_the_host_is_refused(phone: httpx.Client) -> None:
    assert phone.get("/p/", headers={"Host": "evil.example"}).status_code == 421


def test_a_picture_beyond_the_limit_of_phones_is_refused_and_leaves_no_file(
    server: WebServer, phone: httpx.Client
) -> None:
    before = sorted((server.folder / "uploads").iterdir())
    assert send(phone, b"\x89PNG" + bytes(33 << 20)).status_code == 413
    assert sorted((server.folder / "uploads").iterdir()) == before


def test_every_page_of_an_upload_counts_for_the_limit_of_a_phone(
    server: WebServer, laptop: httpx.Client
) -> None:
    with paired(server, laptop) as client:
        csrf = csrf_of(client.get("/p/").text)
        files = [("file", (f"{number}.png", b"no picture")) for number in range(PAGES_PER_HOUR)]
        answers = [
            client.post("/p/upload", data={"csrf": csrf}, files=some).status_code
            for some in (files[1:], files[:2], files[:1])
        ]
        sent = client.get("/p/").text
    assert answers == [303, 429, 429]
    assert sent.count('class="entry"') <= PAGES_PER_HOUR


def trickle(server: WebServer, client: httpx.Client) -> ssl.SSLSocket:
    """A connection on which an upload of the phone has begun."""
    csrf = csrf_of(client.get("/p/").text)
    context = ssl.create_default_context(cafile=str(server.folder / "phone-certificate.pem"))
    where = (client.base_url.host, client.base_url.port)
    connection = context.wrap_socket(
        socket.create_connection(where, timeout=DEADLINE), server_hostname=client.base_url.host
    )
    head = [
        "POST /p/upload HTTP/1.1",
        f"Host: {where[0]}:{where[1]}",
        f"Cookie: pulse_edge_phone={client.cookies['pulse_edge_phone']}",
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Length: 999999",
    ]
    form = [
        *("--x", 'Content-Disposition: form-data; name="csrf"', "", csrf, "--x"),
        'Content-Disposition: form-data; name="file"; filename="a.png"',
    ]
    connection.sendall("\r\n".join([*head, "", *form, "", "half"]).encode())
    return connection


def test_a_disconnected_phone_sends_nothing_more(
    server: WebServer, laptop: httpx.Client, phone: httpx.Client
) -> None:
    uploads = server.folder / "uploads"
    with paired(server, laptop) as client:
        before = set(uploads.iterdir())
        with trickle(server, client) as first, trickle(server, client):
            wait_for(lambda: len(set(uploads.iterdir()) - before) == 2)
            assert send(client, b"third").status_code == 429
            id = re.findall(r"/phone/([\w-]+)/revoke", laptop.get("/phone").text)[-1]
            csrf = csrf_of(laptop.get("/phone").text)
            assert laptop.post(f"/phone/{id}/revoke", data={"csrf": csrf}).status_code == 303
            first.sendall(b"more")
            assert first.recv(100).startswith(b"HTTP/1.1 401")
            wait_for(lambda: len(set(uploads.iterdir()) - before) == 1)
    assert send(phone, b"no picture").status_code == 303


def test_a_picture_whose_file_is_gone_is_not_found(server: WebServer, phone: httpx.Client) -> None:
    id = send(phone).headers["location"].rpartition("/")[2]
    server.wait(id, "waiting", "reading", "done")
    (thumb,) = (server.folder / "pictures").glob(f"{id}-thumb*")
    thumb.unlink()
    assert phone.get(f"/p/r/{id}/picture/thumb").status_code == 404


def test_a_phone_sees_what_the_reader_decided(
    server: WebServer, laptop: httpx.Client, phone: httpx.Client
) -> None:
    id = send(phone).headers["location"].rpartition("/")[2]
    server.wait(id, "done")
    form = {"csrf": csrf_of(laptop.get("/").text), "reader": "Dr Diallo", "final": "yes"}
    form |= {"text-0": "changed", "edited-0": "Normal ECG of a child."}
    assert laptop.post(f"/r/{id}/confirm", data=form).status_code == 303
    shown = phone.get(f"/p/r/{id}").text
    assert "Normal ECG of a child." in shown
    form |= {"overall": "rejected", "corrects": "1"}
    assert laptop.post(f"/r/{id}/confirm", data=form).status_code == 303
    shown = phone.get(f"/p/r/{id}").text
    assert "Rejected as a whole" in shown
    assert "Confirmed by" not in shown


def test_connections_without_a_handshake_leave_room_for_others(
    server: WebServer, phone: httpx.Client
) -> None:
    where = (phone.base_url.host, phone.base_url.port)
    with contextlib.ExitStack() as strangers:
        silent = [strangers.enter_context(socket.create_connection(where)) for _ in range(20)]
        silent[-1].settimeout(10)
        assert silent[-1].recv(1) == b""
    wait_for(lambda: phone.get("/p/").status_code == 200)


def test_wrong_codes_from_one_address_are_slowed_down(
    server: WebServer, phone: httpx.Client
) -> None:
    with phone_client(server, str(phone.base_url)) as stranger:
        codes = [stranger.get("/p/pair?code=wrong").status_code for _ in range(20)]
    assert codes[-1] == 429
    assert phone.get("/p/").status_code == 200


def test_the_cookie_is_out_of_reach_of_scripts_and_plain_connections(
    server: WebServer, laptop: httpx.Client
) -> None:
    link = new_link(laptop)
    with phone_client(server, link) as client:
        answer = client.post("/p/pair", data={"code": link.partition("code=")[2]})
    cookie = answer.headers["set-cookie"].lower()
    assert {"httponly", "secure", "samesite=strict"} <= {p.strip() for p in cookie.split(";")}


def test_plain_http_does_not_answer_on_the_encrypted_port(phone: httpx.Client) -> None:
    plain = str(phone.base_url).replace("https", "http")
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{plain}/p/", timeout=10)


def test_ctrl_c_ends_both_ports(tmp_path: Path) -> None:
    import signal

    options = ("--phone", "--phone-address", "127.0.0.1", "--phone-port", "0", "--phone-plain-http")
    server = WebServer(tmp_path, *options).start()
    try:
        with server.browser() as laptop:
            laptop.post("/phone/new", data={"csrf": csrf_of(laptop.get("/phone").text)})
            shown = laptop.get("/phone").text
        assert "not encrypted" in shown
        link = re.findall(r"http://[^<\s]+/p/pair\?code=[\w-]+", shown)[0]
        assert httpx.get(link).status_code == 200
        assert server.kill(signal.SIGINT) == 130
        wait_for(lambda: not _answers(link))
    finally:
        server.close()


def _answers(address: str) -> bool:
    try:
        httpx.get(address, timeout=5)
    except httpx.HTTPError:
        return False
    return True
