"""A report and its page as one HTML file.

It prints on A4 in grey, fetches no other file and runs no script.

Texts of the model and names of files are data: they are escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from html import escape

from PIL import Image

from pulse_edge.common.text import printable
from pulse_edge.report.content import ALTERNATIVE_TEXT, TITLE, Block, Content, Section, content
from pulse_edge.report.page_picture import to_jpeg
from pulse_edge.report.report import Report

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_CSS = """
* { box-sizing: border-box; }
body { font: 11pt/1.35 Georgia, serif; color: #000; background: #fff; max-width: 46em;
  margin: 1.5em auto; padding: 0 1em; overflow-wrap: break-word; }
h1 { font-size: 1.3em; margin: .6em 0 .3em; }
h2 { font-size: 1.05em; margin: .9em 0 .3em; }
p { margin: .3em 0; }
img { width: 100%; max-height: 60vh; object-fit: contain; border: 1px solid #777; }
figure { margin: .5em 0; }
.notice, .boxed { border: 2px solid #000; padding: .4em .7em; }
.notice { font-weight: bold; text-align: center; white-space: pre-line; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .15em .5em;
  border-bottom: 1px solid #777; }
th { white-space: nowrap; }
td:last-child { overflow-wrap: anywhere; }
.answer { white-space: pre-wrap; }
footer { font-size: .85em; }
.sign { display: flex; gap: 2em; margin-top: 3em; }
.sign div { flex: 1; border-top: 1px solid #000; }
@page { size: A4; margin: 12mm; }
@media print {
  body { font-size: 8pt; line-height: 1.2; margin: 0; max-width: none; padding: 0; }
  img { max-height: 65mm; }
  h2 { margin: .6em 0 .2em; }
  ul { margin: .2em 0; }
  .sign { margin-top: 2em; }
}
"""


def to_html(report: Report, page: Image.Image) -> bytes:
    """Return the report as an HTML file."""
    return "".join(_parts(content(report), page)).encode("utf-8")


def _parts(shown: Content, page: Image.Image) -> Iterator[str]:
    picture = base64.b64encode(to_jpeg(page)).decode()
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{_safe(TITLE)}</title>\n"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_CSS}</style></head>\n<body><main>\n"
    )
    if shown.notice:
        yield f'<p class="notice" role="note">{_safe(shown.notice)}</p>\n'
    yield f'<p class="notice" role="note">{_safe(shown.overread)}</p>\n'
    yield f"<h1>{_safe(TITLE)}</h1>\n<p><strong>{_safe(shown.intended_use)}</strong></p>\n"
    yield f'<figure><img alt="{_safe(ALTERNATIVE_TEXT)}" src="data:image/jpeg;base64,{picture}">\n'
    yield f"<figcaption>{_safe(shown.caption)}</figcaption></figure>\n"
    yield from map(_section, shown.sections)
    yield f"</main><footer>{_section(shown.origin)}"
    signature = "".join(f"<div>{label}</div>" for label in map(_safe, shown.signature))
    yield f'<div class="sign">{signature}</div></footer></body></html>\n'


def _section(section: Section) -> str:
    text = f"<h2>{_safe(section.heading)}</h2>\n" + "".join(map(_block, section.blocks))
    return f'<section class="boxed">{text}</section>\n' if section.boxed else text


def _block(block: Block) -> str:
    if block.kind == "list":
        return "<ul>" + "".join(f"<li>{_safe(item)}</li>" for item in block.items) + "</ul>\n"
    if block.kind == "table":
        return _table(block.head, block.rows)
    kind = ' class="answer"' if block.kind == "answer" else ""
    label = f"<strong>{_safe(block.label)}</strong> " if block.label else ""
    return f"<p{kind}>{label}{_safe(block.text)}</p>\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f'<th scope="col">{_safe(cell)}</th>' for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>\n"


def _safe(text: str) -> str:
    return escape(printable(text), quote=True)
