"""What runs on this machine already and could be shared: looked for on loopback, all at once.

Whatever listens on these ports may be anybody's program. So what it says is bounded in size and
time, is read as nothing but JSON of the expected shape, leads nowhere else (no redirects, no
proxies), and is offered only where it lists models as OpenAI's API does or, where it wants a key
for that, shows that it is the product that this port belongs to.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

DEADLINE = 0.5  # seconds, for all of them together
_HOST = "127.0.0.1"
_MOST_BYTES = 512 * 1024
_MOST_MODELS = 256
_LONGEST_NAME = 200
_LIST = "/v1/models"

OTHER = "An OpenAI-compatible server"


@dataclass(frozen=True)
class Found:
    """A server that runs here. ``models`` is empty where it tells them only with a key."""

    product: str
    url: str
    models: tuple[str, ...]
    needs_key: bool

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "product": self.product,
            "url": self.url,
            "models": list(self.models),
            "needs_key": self.needs_key,
        }


@dataclass(frozen=True)
class Reply:
    """An HTTP answer: its status, its ``Server`` header, and its body where that is JSON."""

    status: int
    server: str
    body: Any


@dataclass(frozen=True)
class Product:
    """A server and its usual port; ``is_it`` judges its answer at the path ``sign``.

    ``denies`` judges how it answers somebody without its key.
    """

    name: str
    port: int
    sign: str
    is_it: Callable[[Reply], bool]
    denies: Callable[[Reply], bool] = lambda _: False


def _field(name: str, kind: type, value: Any = None) -> Callable[[Reply], bool]:
    def judge(reply: Reply) -> bool:
        found = reply.body.get(name) if isinstance(reply.body, dict) else None
        return isinstance(found, kind) and (value is None or found == value)

    return judge


PRODUCTS = (
    # https://docs.ollama.com/api: it takes no key.
    Product("Ollama", 11434, "/api/version", _field("version", str)),
    # Its own command line tells it by this greeting.
    Product(
        "LM Studio", 1234, "/lmstudio-greeting", _field("lmstudio", bool, True), lambda _: True
    ),
    Product(
        "llama-server",
        8080,
        "/health",
        lambda reply: reply.server == "llama.cpp",
        lambda reply: reply.server == "llama.cpp",
    ),
    # vllm/entrypoints/openai: /version is open, everything below /v1 wants the key.
    Product(
        "vLLM",
        8000,
        "/version",
        _field("version", str),
        _field("error", str, "Unauthorized"),
    ),
)


async def detect(
    products: Sequence[Product] | None = None, deadline: float | None = None
) -> tuple[Found, ...]:
    """Look for all ``products`` (default: :data:`PRODUCTS`) side by side.

    Who has not answered after ``deadline`` seconds (default: :data:`DEADLINE`) is not here.

    Never raises for what answers, or does not.
    """
    wanted = PRODUCTS if products is None else products
    found: dict[int, Found] = {}

    async def look(number: int, product: Product) -> None:
        if (one := await _look(product)) is not None:
            found[number] = one

    with anyio.move_on_after(DEADLINE if deadline is None else deadline):
        async with anyio.create_task_group() as probes:
            for number, product in enumerate(wanted):
                probes.start_soon(look, number, product)
    return tuple(found[number] for number in sorted(found))


async def _look(product: Product) -> Found | None:
    listed, sign = await asyncio.gather(_get(product.port, _LIST), _get(product.port, product.sign))
    if listed is None:
        return None
    is_it = sign is not None and sign.status == 200 and product.is_it(sign)
    url = f"http://{_HOST}:{product.port}/v1"
    if listed.status in (401, 403) and is_it and product.denies(listed):
        return Found(product.name, url, (), needs_key=True)
    names = _names(listed.body) if listed.status == 200 else ()
    if not names:
        return None
    return Found(product.name if is_it else OTHER, url, names, needs_key=False)


def _names(body: Any) -> tuple[str, ...]:
    """The models of a list in OpenAI's shape, those that can be named; nothing for all else."""
    if not isinstance(body, dict) or body.get("object") != "list":
        return ()
    data = body.get("data")
    if not isinstance(data, list):
        return ()
    names: dict[str, None] = {}
    for each in data[:_MOST_MODELS]:
        name = each.get("id") if isinstance(each, dict) and each.get("object") == "model" else None
        if isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable():
            names[name] = None
    return tuple(names)


# One question ------------------------------------------------------------------------------------


async def _get(port: int, path: str) -> Reply | None:
    """What a port of this machine answers, or None for whatever is no bounded HTTP answer."""
    try:
        reader, writer = await asyncio.open_connection(_HOST, port)
    except OSError:
        return None
    try:
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {_HOST}:{port}\r\nAccept: application/json\r\n"
            "Connection: close\r\n\r\n"
        )
        writer.write(request.encode("ascii"))
        data = b""
        while not _is_whole(data) and (piece := await reader.read(65536)):
            data += piece
            if len(data) > _MOST_BYTES:
                return None
    except OSError:
        return None
    finally:
        writer.transport.abort()
    return _parsed(data)


_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r\n", re.IGNORECASE)


def _is_whole(data: bytes) -> bool:
    """Whether all is here that was promised: not every server ends the connection when asked."""
    head, end, body = data.partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n") if end else None
    return length is not None and len(body) >= int(length[1])


class _Recorded:
    """Bytes that were received, as the socket that the standard library's parser reads from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


def _parsed(data: bytes) -> Reply | None:
    # All that the parser wants of a socket is makefile(), which a recorded answer has.
    response = http.client.HTTPResponse(_Recorded(data))  # type: ignore[arg-type]
    try:
        response.begin()
        body = response.read()
    except (http.client.HTTPException, OSError, ValueError):
        return None
    try:
        content = json.loads(body, parse_int=_small_int)
    except (ValueError, RecursionError):
        content = None
    return Reply(response.status, response.headers.get("Server", ""), content)


def _small_int(digits: str) -> int:
    # Python takes quadratic time for long ones, and none is needed here.
    return int(digits) if len(digits) < 20 else 0
