"""Lay out pages with Jinja2: every value is escaped, every word comes from the catalogue."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from pulse_edge.common.text import printable
from pulse_edge.web import overview, view, words
from pulse_edge.web.catalogue import LANGUAGES, Catalogue, catalogue, choose

if TYPE_CHECKING:
    from pulse_edge.web.readings import Progress

TEMPLATES = Path(__file__).parent / "templates"
SOON = 90
"""Seconds below which the time left is shown in seconds."""


@lru_cache(maxsize=len(LANGUAGES))
def environment(code: str) -> jinja2.Environment:
    """Return the templates in one language."""
    result = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=harmless,
    )
    language = catalogue(code)
    result.install_gettext_callables(  # type: ignore[attr-defined]  # added by jinja2.ext.i18n
        language.gettext, language.ngettext, newstyle=True
    )
    result.filters["printable"] = printable
    result.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    result.globals.update(
        t=language.gettext,
        words=words,
        language=language.language,
        languages=tuple(LANGUAGES.values()),
        local=overview.local,
        stages={stage: language.gettext(text) for stage, text in words.STAGES.items()},
        advice_text=lambda advice, part: advice_text(language, advice, part),
        time_left=lambda progress: time_left(language, progress),
    )
    return result


def harmless(value: Any) -> Any:
    """Return a value of a template without characters that could mislead a reader."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def language_of(request: Request) -> str:
    """Return the code of the language in which a request is answered."""
    return choose(request.query_params.get("lang"), request.headers.get("accept-language", ""))


def page(
    request: Request, name: str, values: Mapping[str, Any], *, status: int = 200
) -> HTMLResponse:
    """Return a page in the language of the request.

    `values` needs `about`, which each page shows.
    """
    code = language_of(request)
    chosen = request.query_params.get("lang", "")
    shared = {
        "here": request.url.path,
        "chosen": code if chosen in LANGUAGES else "",
        "csrf_token": csrf_token(request),
        "url": lambda path: url(request, path),
        "in_language": lambda other: in_language(request, other),
    }
    template = environment(code).get_template(name)
    headers = {"Content-Language": code, "Vary": "Accept-Language"}
    return HTMLResponse(template.render({**shared, **values}), status, headers)


def csrf_token(request: Request) -> str:
    """Return the token that the session's forms carry; empty without a session."""
    identity = getattr(request.state, "identity", None)
    return "" if identity is None else str(identity.csrf)


def url(request: Request, path: str) -> str:
    """Return a path of this page with the language that was chosen, if any."""
    chosen = request.query_params.get("lang", "")
    return f"{path}?{urlencode({'lang': chosen})}" if chosen in LANGUAGES else path


def in_language(request: Request, code: str) -> str:
    """Return the address of the present page in another language.

    What answers a form has no address of its own: the page that the form stands on has.
    """
    query = [(k, v) for k, v in request.query_params.multi_items() if k not in ("lang", "token")]
    path = request.url.path
    if request.method != "GET":
        path = path.rpartition("/")[0] if path.startswith("/r/") else "/"
    return f"{path}?{urlencode([*query, ('lang', code)])}"


def advice_text(language: Catalogue, advice: view.Advice, part: str) -> str:
    """Return `fact` or `action` of an advice, translated, with its values."""
    text = language.gettext(advice.fact if part == "fact" else advice.action)
    return text.format(**advice.values)


def time_left(language: Catalogue, progress: Progress | None) -> str:
    """Return the time that a reading will still take, in words; empty where it is unknown."""
    if progress is None or progress.seconds_left is None:
        return ""
    if (seconds := round(progress.seconds_left)) < SOON:
        return language.gettext("about {number} s left").format(number=max(1, seconds))
    return language.gettext("about {number} min left").format(number=round(seconds / 60))
