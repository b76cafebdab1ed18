"""`pulse-edge serve`: the local page, for people who do not use a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pulse_edge.cli import options
from pulse_edge.cli.console import Console
from pulse_edge.cli.options import ReadyCommand
from pulse_edge.errors import EngineError, UsageError

LIBRARIES = ("starlette", "uvicorn", "python_multipart")


@click.command(cls=ReadyCommand)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8412,
    show_default=True,
    help="Port of this machine to listen on; 0 takes a free one.",
)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    show_default="web in this user's state directory",
    help="Folder for uploads, results and the queue.",
)
@click.option(
    "--phone", is_flag=True, help="Let paired phones in the same network photograph pages."
)
@click.option(
    "--phone-address",
    metavar="ADDRESS",
    show_default="the one that the routing table gives",
    help="This laptop's IP address in the phones' network.",
)
@click.option(
    "--phone-port",
    type=click.IntRange(0, 65535),
    default=8413,
    show_default=True,
    help="Port for phones; 0 takes a free one.",
)
@click.option(
    "--phone-plain-http",
    is_flag=True,
    help="Serve phones without encryption: others in the network can read pictures and answers.",
)
@options.questions
@options.findings
@options.max_tokens
@options.model
@options.page
@options.measurement
@options.retain
def serve(
    port: int,
    open_browser: bool,
    folder: Path | None,
    phone: bool,
    phone_address: str | None,
    phone_port: int,
    phone_plain_http: bool,
    **values: Any,
) -> None:
    """Serve a local page for uploading, reading and asking about pages.

    Only this machine, and only this user, can open the page. With --phone, phones that were paired
    by a code on the page can send pictures. Ctrl-C ends the server; pages that wait are read after
    the next start.
    """
    _require_libraries()
    from pulse_edge.errors import ServeError
    from pulse_edge.web import server
    from pulse_edge.web.options import PhoneOptions, ServeOptions, default_folder

    console, request = Console(), options.request(values)
    place = folder or default_folder()
    phones = PhoneOptions(phone_address, phone_port, not phone_plain_http) if phone else None
    if phones is None and (phone_address or phone_plain_http):
        raise UsageError("--phone-address and --phone-plain-http: are for --phone. Add it.")
    serve_options = ServeOptions(request, place, port=port, phone=phones, open_browser=open_browser)
    try:
        server.run(serve_options, lambda text: console.note(text, always=True))
    except ServeError:
        if not (open_browser and server.open_running(place)):
            raise
        console.note("pulse-edge is running already: its page was opened.", always=True)


def _require_libraries() -> None:
    from importlib.util import find_spec

    for library in LIBRARIES:
        if find_spec(library) is None:
            raise EngineError(
                f"{library} is not installed, and `serve` needs it. Install the extra: "
                "pip install 'pulse-edge[serve]'."
            )
