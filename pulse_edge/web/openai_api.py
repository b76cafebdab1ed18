"""`/v1`: the chat completions and models of OpenAI's API, for programs that know it.

In: a page as a data URL with a question. Out: the answer with its marks in the field `pulse_edge`
and in front of the text. A stream holds its text back until the checks are done, because
contradictions stand above the text in every output. Source: OpenAI's API reference.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pulse_edge.errors import PulseEdgeError
from pulse_edge.web import api_errors, following, marks, openai_request
from pulse_edge.web.api_errors import RequestError, usage
from pulse_edge.web.following import States
from pulse_edge.web.openai_request import Chat
from pulse_edge.web.options import ServeOptions

if TYPE_CHECKING:
    from pulse_edge.web.service import Reading, Service

OWNER = "pulse-edge"
BODIES = 4
"""Bodies that are in memory at the same time. One of 64 MB takes up to 200 MB while it is parsed."""
Json = dict[str, Any]


def routes(service: Service, _options: ServeOptions) -> list[Route]:
    """Return the routes below `/v1`."""
    bodies = asyncio.Semaphore(BODIES)

    async def models(_request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(service)]})

    async def model(request: Request) -> Response:
        about = _model(service)
        if request.path_params["model"] != about["id"]:
            message = f"The kit here is {about['id']!r}; there is no other model."
            raise RequestError("not_found", message, 2, "model", "model_not_found")
        return JSONResponse(about)

    async def completions(request: Request) -> Response:
        return await _Completion(service, request, bodies).response()

    return [
        Route("/v1/models", _answered(models), methods=["GET"]),
        Route("/v1/models/{model:path}", _answered(model), methods=["GET"]),
        Route("/v1/chat/completions", _answered(completions), methods=["POST"]),
    ]


def _answered(
    endpoint: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint with its errors in OpenAI's form."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except RequestError as e:
            return error_response(e)
        except ClientDisconnect:
            return Response(status_code=499)  # no one reads it
        except PulseEdgeError as e:
            return error_response(api_errors.of_error(e))

    return answer


def error_response(error: RequestError) -> Response:
    """Return an error in OpenAI's form.

    OpenAI's clients repeat a request after a status of 500 and above. The same page fails in the
    same way, after minutes of work, so they are asked not to.
    """
    headers = {"x-should-retry": "false"} if error.kind == "reading_failed" else {}
    return JSONResponse(error.to_openai_json(), error.status, headers)


def _model(service: Service) -> Json:
    kit = _kit_id(service)
    created = int(datetime.fromisoformat(service.about()["kit_created"]).timestamp())
    return {"id": kit, "object": "model", "created": created, "owned_by": OWNER}


def _kit_id(service: Service) -> str:
    """Return the id of the kit. Raises RequestError where there is none."""
    about = service.about()
    if about["kit_id"] is None:
        raise api_errors.not_ready(about) or RequestError("model_not_ready", "There is no kit yet.")
    kit: str = about["kit_id"]
    return kit


class _Completion:
    """One request for a chat completion."""

    def __init__(self, service: Service, request: Request, bodies: asyncio.Semaphore) -> None:
        """`bodies` bounds the bodies that are in memory."""
        self._service, self._request, self._bodies = service, request, bodies
        self._created = int(time.time())
        self._id = ""
        self._kit = ""

    async def response(self) -> Response:
        """Return the completion, whole or as a stream. Raises RequestError, ClientGone."""
        self._kit = _kit_id(self._service)
        async with self._bodies:
            chat = await _chat(self._request, self._kit)
            if failure := api_errors.not_ready(self._service.about()):
                raise failure
            self._id = await self._submit(chat)
            chat = dataclasses.replace(chat, upload=b"")  # it waits for minutes
        states = following.follow(self._service, self._id, self._request)
        try:
            # Before the first byte, so that a refused page is an error to every client.
            reading = await following.judged(states)
            if reading.state in ("refused", "failed", "removed"):
                raise api_errors.of_reading(reading)
            if not chat.stream:
                return JSONResponse(self._whole(await following.last(states, reading), chat))
        except BaseException:
            await states.aclose()
            raise
        return StreamingResponse(
            self._stream(states, reading, chat),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def _submit(self, chat: Chat) -> str:
        ids = await self._service.submit(chat.upload, chat.name, source="api", options=chat.options)
        if len(ids) == 1:
            return ids[0]
        for one in ids:
            await self._service.remove(one)
        raise usage(
            f"{chat.name}: has {len(ids)} pages, and a conversation is about one. Send it as a "
            "file of its own.",
            "messages",
        )

    # --- the whole answer -------------------------------------------------------------------------

    def _whole(self, reading: Reading, chat: Chat) -> Json:
        """Return the completion of a reading that has ended. Raises RequestError if it failed."""
        answer = _answer(reading)
        report: Json = reading.report or {}
        before = "" if "json_schema" in chat.options else marks.before_text(report)
        message = {"role": "assistant", "content": before + answer["text"], "refusal": None}
        return {
            **self._head("chat.completion"),
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": None,
                    "finish_reason": _finish_reason(answer),
                }
            ],
            "usage": _usage(reading),
            "pulse_edge": marks.field(reading.id, report),
        }

    def _head(self, kind: str) -> Json:
        return {
            "id": f"chatcmpl-{self._id}",
            "object": kind,
            "created": self._created,
            "model": self._kit,
        }

    # --- the stream -------------------------------------------------------------------------------

    async def _stream(self, states: States, reading: Reading, chat: Chat) -> AsyncIterator[str]:
        """Yield server-sent events: role, text, end, on request the token counts, `[DONE]`."""
        yield self._chunk({"role": "assistant", "content": ""})
        text = _Text(chat)
        try:
            async with aclosing(states):
                async for state in states:
                    reading = state or reading
                    if state is None:
                        yield ": waiting\n\n"
                    elif (more := text.as_it_comes(reading)) != "":
                        yield self._chunk({"content": more})
            answer = _answer(reading)
            report: Json = reading.report or {}
            parts = text.rest(answer["text"], report)
        except RequestError as e:
            yield f"data: {json.dumps(e.to_openai_json())}\n\n"
            return
        for number, part in enumerate(parts):
            field = marks.field(reading.id, report) if number == 0 else None
            yield self._chunk({"content": part}, pulse_edge=field)
        yield self._chunk({}, finish_reason=_finish_reason(answer))
        if chat.include_usage:
            counts = {**self._head("chat.completion.chunk"), "choices": []}
            yield f"data: {json.dumps(counts | {'usage': _usage(reading)})}\n\n"
        yield "data: [DONE]\n\n"

    def _chunk(
        self, delta: Json, *, finish_reason: str | None = None, pulse_edge: Json | None = None
    ) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        if pulse_edge is not None:
            chunk["pulse_edge"] = pulse_edge
        return f"data: {json.dumps(chunk)}\n\n"


class _Text:
    """The text of a stream, and what of it was sent."""

    def __init__(self, chat: Chat) -> None:
        self._unchecked = chat.unchecked
        self._marked = "json_schema" not in chat.options
        self._sent: str | None = None

    def as_it_comes(self, reading: Reading) -> str:
        """Return what can be sent of an unfinished text: all that is new, if the client asked.

        A text that is checked already goes out with its marks first, as to any client.
        """
        if not self._unchecked or not reading.text or reading.report is not None:
            return ""
        if self._sent is None:
            self._sent = ""
            before = marks.before_unchecked_text(reading.notices) if self._marked else ""
        else:
            before = ""
        # After a crash the text begins again; it is the same as before.
        new = reading.text.removeprefix(self._sent) if self._continues(reading.text) else ""
        self._sent += new
        return before + new

    def rest(self, text: str, report: Json) -> list[str]:
        """Return what is to be sent when the answer is complete and checked; never empty."""
        if self._sent is None:
            return [marks.before_text(report), text] if self._marked else [text]
        if not self._continues(text):
            raise RequestError("reading_failed", "The answer differs from its own beginning.")
        below = marks.after_unchecked_text(report) if self._marked else ""
        return [text[len(self._sent) :] + below]

    def _continues(self, text: str) -> bool:
        return self._sent is not None and text.startswith(self._sent)


async def _chat(request: Request, kit: str) -> Chat:
    """Return the checked request. Raises RequestError."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        message = f"Content-Type {media or 'missing'}: expected application/json."
        raise RequestError("unsupported_media_type", message, 2)
    raw = b"".join([piece async for piece in request.stream()])
    # In a thread: a long body takes half a second, in which others would wait for their events.
    return await asyncio.to_thread(_parsed, raw, kit)


def _parsed(raw: bytes, kit: str) -> Chat:
    try:
        body = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise usage(f"The body is no JSON that can be read ({e}).") from None
    return openai_request.parse(body, kit)


def _answer(reading: Reading) -> Json:
    """Return the one answer of a reading's report. Raises RequestError where there is none."""
    if reading.state != "done" or reading.report is None:
        raise api_errors.of_reading(reading)
    answer: Json = reading.report["answers"][-1]
    return answer


def _finish_reason(answer: Json) -> str:
    return "stop" if answer["complete"] else "length"


def _usage(reading: Reading) -> Json:
    """Return the token counts: the page's image tokens with the prompt's, and the answer's."""
    report: Json = reading.report or {}
    answer = report["answers"][-1]
    prompt, completion = answer["prompt_tokens"], answer["tokens"]
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"image_tokens": report["image_tokens"]},
    }
