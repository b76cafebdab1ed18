"""`pulse-edge check`: are pages fit to be read? Registered by cli.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pulse_edge.cli.console import Screen, say
from pulse_edge.cli.options import ReadyCommand
from pulse_edge.common.text import json_text
from pulse_edge.errors import OutputError, PulseEdgeError, UsageError, on_page

if TYPE_CHECKING:
    from PIL import Image

    from pulse_edge.page.admission import CheckedPage
    from pulse_edge.page.reader import Page

LONGEST_NAME = 200
"""Bytes of a picture's name before its ending: with a number and the ending every file system takes it."""


@click.command(cls=ReadyCommand)
@click.argument("scans", nargs=-1, required=True, metavar="SCAN...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per page, one a line.")
@click.option(
    "--save-page",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write there what the model would see (photographs as JPEG), and copies with what was found drawn over them.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace pictures of --save-page. Default: give new ones another name.",
)
@click.option("--no-rectify", is_flag=True, help="Leave the page's pixels as they are.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def check(
    scans: tuple[str, ...],
    as_json: bool,
    save_page: Path | None,
    overwrite: bool,
    no_rectify: bool,
    debug: bool,
) -> None:
    """Say whether pages are fit to be read, without a model: good, usable, or refused and why."""
    from pulse_edge.page import decoder_client

    decoder_client.start()  # while the libraries are loaded
    raise SystemExit(
        _Check(as_json, save_page, overwrite=overwrite, straighten=not no_rectify).all(scans)
    )


class _Check:
    """The pages that were named, one after the other; a page that fails is counted, and the next one is looked at."""

    def __init__(
        self, as_json: bool, save_page: Path | None, *, overwrite: bool, straighten: bool
    ) -> None:
        self._as_json, self._save_page, self._overwrite = as_json, save_page, overwrite
        self._straighten = straighten
        self._screen = Screen()
        self._worst = self._pages = self._refused = self._failed = 0

    def all(self, scans: tuple[str, ...]) -> int:
        """Look at every page, and return the exit code: that of the worst."""
        from pulse_edge.page import reader

        for source in scans:
            try:
                with reader.Document(source) as document:
                    for page in document:
                        self._pages += 1
                        if isinstance(page, reader.UnreadablePage):
                            self._fail(page.name, page.error)
                        else:
                            self._one(page)
            except PulseEdgeError as e:
                if isinstance(e, UsageError | OutputError):
                    raise
                self._pages += 1
                self._fail(source, e)
        if self._pages > 1:
            summary = (
                f"{self._pages} pages: {self._refused} refused, {self._failed} could not be read"
            )
            self._screen.note(summary, always=bool(self._refused or self._failed))
        return self._worst

    def _one(self, page: Page) -> None:
        from pulse_edge.page import admission

        try:
            checked = admission.check(page, straighten=self._straighten)
            if self._save_page is not None:
                for path in _save_page(checked, self._save_page, overwrite=self._overwrite):
                    self._screen.note(f"written: {path}")
            text = _checked_text(checked, self._as_json)
        except UsageError:  # of --save-page
            raise
        except Exception as e:
            self._fail(page.name, e)
            return
        if checked.quality.verdict == "refused":
            self._refused += 1
            self._worst = max(self._worst, 3)
        say(text)

    def _fail(self, name: str, error: Exception) -> None:
        self._failed += 1
        self._worst = max(
            self._worst, self._screen.failed(name, on_page(name, error), self._as_json)
        )


def _checked_text(checked: CheckedPage, as_json: bool) -> str:
    """A line of JSON, or a few lines for people."""
    from pulse_edge.page.admission import facts

    said = facts(checked)
    if as_json:
        return json_text(said) + "\n"
    scale = said["grid"]["pixels_per_mm"]
    row = f"{said['verdict']:<8} {said['layout'] or '-':<8} {said['leads']:>2} leads"
    row += f"  {f'{scale:.1f} px/mm' if scale else 'no grid':<11}  {checked.page.name}\n"
    for reason in said["reasons"]:
        row += f"         {reason['advice']}\n"
    return row


def _save_page(checked: CheckedPage, folder: Path, *, overwrite: bool) -> list[Path]:
    """Write NAME.ENDING.png as the model would see it, .found with rows and verdict, .sheet with the outline; return the paths.

    ENDING is that of the file. What shows a photograph is a JPEG, which takes a tenth of the space. A name that is taken
    gets a number, unless `overwrite`. Raises UsageError where the folder takes no files.
    """
    from pulse_edge.common.files import write_set
    from pulse_edge.page import quality

    flat, grid = checked.flat, checked.flat.grid
    file = Path(checked.page.name.removesuffix(f"#{checked.page.number}"))
    ending = file.suffix + (
        f".page{checked.page.number}" if file.name != Path(checked.page.name).name else ""
    )
    photo = flat.frame is not None
    found = quality.overlay(
        flat.image, checked.quality, grid.across if grid else None, grid.down if grid else None
    )
    contents = dict(
        [_encoded(ending, flat.image, photo), _encoded(f"{ending}.found", found, photo)]
    )
    if flat.sheet.corners is not None:
        contents |= [
            _encoded(
                f"{ending}.sheet",
                quality.sheet_overlay(checked.page.image, flat.sheet.corners),
                True,
            )
        ]
    try:
        stem = (file.stem if file.name != "-" else "stdin").encode("utf-8", "replace")
        return write_set(
            folder, stem[:LONGEST_NAME].decode("utf-8", "ignore"), contents, overwrite=overwrite
        )
    except OSError as e:
        raise UsageError(
            f"{folder}: cannot be written to ({e.strerror or e}). Name another folder."
        ) from None


def _encoded(ending: str, picture: Image.Image, photo: bool) -> tuple[str, bytes]:
    """The ending of a file's name, and the picture's bytes."""
    import io

    file = io.BytesIO()
    if photo:
        picture.save(file, "JPEG", quality=92, subsampling=0)
        return f"{ending}.jpg", file.getvalue()
    picture.save(file, "PNG", compress_level=4)
    return f"{ending}.png", file.getvalue()
