"""OpenAI's routes at the guest's endpoint."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any

from ...errors import ProtocolViolation, QmtError
from ...harmless import printable
from ...wire.completions import ChunkBuilder, Completion
from ...wire.messages import Delta, Queued, Started, encoded_size
from ..mesh import Route
from ..returning import Away
from . import errors as refusals
from . import requests as requests
from .door import Door
from .errors import NotServed
from .stream import DONE, EventStream, NotRead, close_connection, encode_json, event

# Bytes of the whole answer of one request that does not stream.
_LONGEST_ANSWER = 32 * 1024 * 1024
# The host's own reasons for cutting an answer, which no client of OpenAI's knows.
_CUT = ("budget", "rate", "day", "month")

log = logging.getLogger(__name__)


class Root(Door):
    """What somebody reads who opens the address in a browser, or probes it."""

    needs_key = False

    async def get(self, *_: str) -> None:
        """A sentence."""
        self.enter()
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(
            "qmt-jupyter: an OpenAI-compatible endpoint in front of a mesh. Give your tool "
            f"http://{self.request.host}/v1 as base URL, and the key that was shown at its start.\n"
        )

    head = get


class Models(Door):
    """``/v1/models``."""

    async def get(self, *_: str) -> None:
        """What is offered now."""
        self.enter()
        await self.service.refresh()
        models = [_model(each, self.service.created) for each in self.service.models()]
        await self.send(encode_json({"object": "list", "data": models}))

    head = get


class OneModel(Door):
    """``/v1/models/{id}``; an id may have slashes."""

    async def get(self, *path: str) -> None:
        """The model, if it is offered."""
        self.enter()
        name = path[0]
        await self.service.refresh(name)
        for each in self.service.models():
            if each["name"] == name:
                await self.send(encode_json(_model(each, self.service.created)))
                return
        raise refusals.unknown_model(printable(name, 100))

    head = get


def _model(offer: dict[str, Any], created: int) -> dict[str, Any]:
    model = {
        "id": offer["name"],
        "object": "model",
        "created": created,
        "owned_by": offer.get("mesh") or "qmt",
    }
    if offer.get("context"):
        model["context_length"] = offer["context"]
    return model


class Asking(Door):
    """A route that takes a JSON body and asks a host."""

    methods = ("POST",)

    async def post(self, *_: str) -> None:
        """Read the body, then work on it until it is done or its client has gone."""
        self.enter()
        body = requests.read_json(bytes(self.received))
        self.received.clear()
        self.asked = body
        await self.run(self._answer(body))

    async def _answer(self, body: dict[str, Any]) -> None:
        # Each route's own; this class only reads the body and minds the client.
        raise NotImplementedError


class Chat(Asking):
    """``/v1/chat/completions``."""

    async def _answer(self, body: dict[str, Any]) -> None:
        asked = requests.chat_request(body)
        if asked.stream:
            await self._stream(asked)
        else:
            await self._whole(asked)

    async def _whole(self, asked: requests.ChatRequest) -> None:
        completion = Completion()
        size = 0
        async with aclosing(self.service.answer(asked.body)) as replies:
            async for reply in replies:
                if isinstance(reply, Delta):
                    size += encoded_size({"": reply.choices})
                    if size > _LONGEST_ANSWER:
                        raise ProtocolViolation("The host's answer does not end.")
                    _name_as_openai(reply.choices)
                if not isinstance(reply, (Route, Away)):
                    completion.add(reply)
        await self.send(encode_json(completion.result()))

    async def _stream(self, asked: requests.ChatRequest) -> None:
        events = EventStream(self)
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("X-Accel-Buffering", "no")
        try:
            try:
                await self._send_chunks(asked, events)
                events.post(DONE)
            except NotRead:
                raise
            except (Exception, asyncio.CancelledError) as error:
                self._end_with(error, events)
            await events.flush()
        except NotRead:
            log.debug("a client does not read its answer: its connection is closed")
            close_connection(self)
        finally:
            events.close()
        if not self._finished:
            self.finish()

    async def _send_chunks(self, asked: requests.ChatRequest, events: EventStream) -> None:
        builder = ChunkBuilder()
        async with aclosing(self.service.answer(asked.body)) as replies:
            async for reply in replies:
                if isinstance(reply, Queued):
                    events.position = reply.position
                    continue
                if isinstance(reply, Started):
                    events.position = None
                if isinstance(reply, Delta):
                    _name_as_openai(reply.choices)
                chunk = builder.chunk(reply)
                if chunk is None:
                    continue
                if asked.include_usage:
                    chunk.setdefault("usage", None)
                elif "usage" in chunk:
                    continue
                events.post(event(chunk))
                await events.ready()

    def _end_with(self, error: BaseException, events: EventStream) -> None:
        """Say in the stream why it ends, where its status has gone out already."""
        if not events.has_begun:
            raise error
        if isinstance(error, asyncio.CancelledError):
            if not self.service.closing:
                raise error
            error = self.service.closed()
        elif not isinstance(error, (QmtError, NotServed)):
            self.log_exception(type(error), error, error.__traceback__)
        events.post(event(refusals.answer_for(error, self.asked).body()))


def _name_as_openai(choices: list[dict[str, Any]]) -> None:
    """An answer cut by the invite's limits is one cut by length; the true reason stands beside."""
    for choice in choices:
        if choice.get("finish_reason") in _CUT:
            choice["qmt_finish_reason"] = choice["finish_reason"]
            choice["finish_reason"] = "length"


class Embeddings(Asking):
    """``/v1/embeddings``."""

    async def _answer(self, body: dict[str, Any]) -> None:
        asked = requests.embeddings_request(body)
        response = await self.service.embed(asked.body)
        entries = []
        for entry in response.pop("data"):
            if asked.as_base64:
                entry["embedding"] = requests.vector_as_base64(entry["embedding"])
            entries.append(encode_json(entry))
            # Writing out millions of numbers takes seconds: everything else goes on meanwhile.
            await asyncio.sleep(0)
        rest = encode_json(response)
        await self.send(b'{"data":[' + b",".join(entries) + b"]," + rest[1:])


class Unknown(Door):
    """Whatever else is asked for."""

    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

    async def _nothing(self, *_: str) -> None:
        self.enter()
        raise refusals.unknown_path(*self.where)

    get = head = post = put = patch = delete = _nothing


ROUTES = [
    (r"/", Root),
    (r"/v1/models/?", Models),
    (r"/v1/models/(.+)", OneModel),
    (r"/v1/chat/completions/?", Chat),
    (r"/v1/embeddings/?", Embeddings),
]
