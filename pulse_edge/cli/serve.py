"""`pulse-edge serve`: the local page, for people who do not use a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pulse_edge.cli import options
from pulse_edge.cli.console import Console
from pulse_edge.cli.options import ReadyCommand
from pulse_edge.errors import EngineError

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
@options.questions
@options.findings
@options.max_tokens
@options.model
@options.page
@options.measurement
@options.retain
def serve(port: int, open_browser: bool, folder: Path | None, **values: Any) -> None:
    """Serve a local page for uploading, reading and asking about pages.

    Only this machine, and only this user, can open the page. Ctrl-C ends the server; pages that
    wait are read after the next start.
    """
    _require_libraries()
    from pulse_edge.errors import ServeError
    from pulse_edge.web import server
    from pulse_edge.web.options import ServeOptions, default_folder

    console, request = Console(), options.request(values)
    place = folder or default_folder()
    serve_options = ServeOptions(request, place, port=port, open_browser=open_browser)
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
