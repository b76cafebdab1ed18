"""`pulse-edge check`: are pages fit to be read? No kit is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pulse_edge.cli.console import Console, say
from pulse_edge.cli.options import ReadyCommand, no_rectify
from pulse_edge.common.text import json_text
from pulse_edge.errors import OutputError, PulseEdgeError, UsageError, on_page

if TYPE_CHECKING:
    from PIL import Image

    from pulse_edge.page.admission import CheckedPage
    from pulse_edge.page.reader import Page

MAX_STEM_BYTES = 200
"""Bytes of a picture's name before its ending: with a number and the ending, every file system
takes it."""


@click.command(cls=ReadyCommand)
@click.argument("files", nargs=-1, required=True, metavar="PAGE...")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per page.")
@click.option(
    "--save-page",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Save each page as the model sees it, and a copy with leads and grid drawn on it.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace saved pages of the same name instead of numbering new ones.",
)
@no_rectify
def check(
    files: tuple[str, ...], as_json: bool, save_page: Path | None, overwrite: bool, no_rectify: bool
) -> None:
    """Judge whether pages are fit to be read.

    A page is good, usable, or refused; the reasons say how to get a better one. No kit is needed.
    """
    from pulse_edge.page import decoder_client

    decoder_client.start()  # its process starts while this one loads libraries
    checker = _Checker(as_json, save_page, overwrite=overwrite, rectify=not no_rectify)
    raise SystemExit(checker.all(files))


class _Checker:
    """Judges one page after the other. A page that fails is counted, and the next one follows."""

    def __init__(
        self, as_json: bool, save_page: Path | None, *, overwrite: bool, rectify: bool
    ) -> None:
        self._as_json, self._save_page, self._overwrite = as_json, save_page, overwrite
        self._rectify = rectify
        self._console = Console()
        self._exit_code = self._pages = self._refused = self._failed = 0

    def all(self, files: tuple[str, ...]) -> int:
        """Judge every page, and return the exit code of the worst."""
        from pulse_edge.page import reader

        for file in files:
            try:
                with reader.Document(file) as document:
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
                self._fail(file, e)
        if self._pages > 1:
            text = f"{self._pages} pages: {self._refused} refused, {self._failed} could not be read"
            self._console.note(text, always=bool(self._refused or self._failed))
        return self._exit_code

    def _one(self, page: Page) -> None:
        from pulse_edge.measurement import admission

        try:
            checked = admission.check(page, straighten=self._rectify).checked
            if self._save_page is not None:
                for path in _save(checked, self._save_page, overwrite=self._overwrite):
                    self._console.note(f"written: {path}")
            text = _text(checked, self._as_json)
        except UsageError:  # from --save-page
            raise
        except Exception as e:
            self._fail(page.name, e)
            return
        if checked.quality.verdict == "refused":
            self._refused += 1
            self._exit_code = max(self._exit_code, 3)
        say(text)

    def _fail(self, name: str, error: Exception) -> None:
        self._failed += 1
        code = self._console.failed(name, on_page(name, error), self._as_json)
        self._exit_code = max(self._exit_code, code)


def _text(checked: CheckedPage, as_json: bool) -> str:
    """Return a line of JSON, or a few lines for people."""
    from pulse_edge.page.admission import facts

    quality = facts(checked)
    if as_json:
        return json_text(quality) + "\n"
    scale = quality["grid"]["pixels_per_mm"]
    row = f"{quality['verdict']:<8} {quality['layout'] or '-':<8} {quality['leads']:>2} leads"
    row += f"  {f'{scale:.1f} px/mm' if scale else 'no grid':<11}  {checked.page.name}\n"
    for reason in quality["reasons"]:
        row += f"         {reason['advice']}\n"
    return row


def _save(checked: CheckedPage, folder: Path, *, overwrite: bool) -> list[Path]:
    """Save pictures of a page, and return their paths.

    NAME.ENDING.png is the page as the model sees it, .overlay has rows and verdict drawn on it,
    .sheet the outline of the sheet.

    ENDING is that of the page's file. Pictures of photographs are JPEG files, which take a tenth of
    the space. A name that exists gets a number, unless `overwrite`. Raises UsageError where the
    folder takes no files.
    """
    from pulse_edge.common.files import write_set
    from pulse_edge.page.overlay import page_overlay, sheet_overlay
    from pulse_edge.report.writers import not_an_option

    flat, grid = checked.flat, checked.flat.grid
    file = Path(checked.page.name.removesuffix(f"#{checked.page.number}"))
    of_several = file.name != Path(checked.page.name).name
    ending = file.suffix + (f".page{checked.page.number}" if of_several else "")
    photo = flat.frame is not None
    across, down = (grid.across, grid.down) if grid else (None, None)
    overlay = page_overlay(flat.image, checked.quality, across, down)
    contents = dict([_encoded(ending, flat.image, photo)])
    contents |= [_encoded(f"{ending}.overlay", overlay, photo)]
    if flat.sheet.corners is not None:
        outline = sheet_overlay(checked.page.image, flat.sheet.corners)
        contents |= [_encoded(f"{ending}.sheet", outline, True)]
    stem = not_an_option(file.stem) if file.name != "-" else "stdin"
    raw = stem.encode("utf-8", "replace")[:MAX_STEM_BYTES]
    try:
        return write_set(folder, raw.decode("utf-8", "ignore"), contents, overwrite=overwrite)
    except OSError as e:
        raise UsageError(
            f"{folder}: cannot be written to ({e.strerror or e}). Name another folder."
        ) from None


def _encoded(ending: str, picture: Image.Image, photo: bool) -> tuple[str, bytes]:
    """Return the ending of a file's name, and the picture's bytes."""
    from pulse_edge.page.picture_bytes import encoded

    kind, content = encoded(picture, photo=photo)
    return f"{ending}.{kind}", content
