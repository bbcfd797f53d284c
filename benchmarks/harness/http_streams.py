"""The least that speaks OpenAI's streaming protocol: a server that only writes, a client that only
counts.

Neither knows more HTTP than the other ends here need, so that what stands between them shows.
"""

from __future__ import annotations

import asyncio
import json
import time

# Two in turn: a proxy may end a stream that says the same a hundred times.
_WORDS = ("lighthouse ", "lighthouse, ")
_PIECE_MARK = b'"content":"lighthouse'
_DONE = b"data: [DONE]"
_LAST_PART = b"0\r\n\r\n"


def _part(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(choices: list[object], **more: object) -> bytes:
    chunk = {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": "fast",
        "choices": choices,
        **more,
    }
    return _part(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")


def _choice(delta: dict[str, str], finish: str | None = None) -> list[object]:
    return [{"index": 0, "delta": delta, "finish_reason": finish}]


_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    + _event(_choice({"role": "assistant", "content": ""}))
)
_PIECES = tuple(_event(_choice({"content": word})) for word in _WORDS)


class Server(asyncio.Protocol):
    """One connection to a server that writes ``max_tokens`` pieces, ``seed`` milliseconds apart.

    Each piece is a write of its own, as servers do; with 0 they come as fast as they are taken, and
    streams take turns.
    """

    def __init__(self, key: str) -> None:
        self._authorization = f"authorization: bearer {key}".lower().encode()
        self._received = b""
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        for task in self._tasks:
            task.cancel()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        if len(body) < length:
            return
        self._received = body[length:]
        if self._authorization not in head.lower():
            self._answer(b"401 Unauthorized", b'{"error":{"message":"no key"}}')
        elif head.startswith(b"GET"):
            self._answer(b"200 OK", b'{"object":"list","data":[{"id":"fast","object":"model"}]}')
        else:
            task = asyncio.ensure_future(self._stream(json.loads(body[:length])))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _answer(self, status: bytes, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (status, len(body), body)
        )

    async def _stream(self, request: dict[str, object]) -> None:
        pieces, apart = request["max_tokens"], request["seed"]
        assert isinstance(pieces, int)
        assert isinstance(apart, int)
        self._transport.write(_HEAD)
        for number in range(pieces):
            if not self._may_write.is_set():
                await self._may_write.wait()
            self._transport.write(_PIECES[number % 2])
            await asyncio.sleep(apart / 1000)
        counts = {"prompt_tokens": 8, "completion_tokens": pieces, "total_tokens": 8 + pieces}
        self._transport.write(
            _event(_choice({}, "length"))
            + _event([], usage=counts)
            + _part(_DONE + b"\n\n")
            + _LAST_PART
        )


async def serve(key: str) -> tuple[asyncio.Server, int]:
    """Listen on a free port of loopback."""
    server = await asyncio.get_running_loop().create_server(lambda: Server(key), "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


class Client:
    """Connections to one server, kept open from round to round."""

    def __init__(self, url: str, key: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        self._key = key
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, prompt: str, pieces: int, apart: int) -> tuple[float, int]:
        """Seconds to the first piece and the number of pieces of one answer."""
        body = {
            "model": "fast",
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": pieces,
            "seed": apart,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        data = json.dumps(body).encode()
        asked = time.perf_counter()
        reader, writer = await self._connection()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: %s:%d\r\nAuthorization: Bearer %s\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (self._address[0].encode(), self._address[1], self._key.encode(), len(data), data)
        )
        first = 0.0
        count = 0
        rest = b""
        done = False
        while True:
            data = await reader.read(65536)
            if not data:
                raise SystemExit(f"{self._address} ended an answer early: {rest[-500:]!r}")
            seen = rest + data
            if found := seen.count(_PIECE_MARK):
                count += found
                first = first or time.perf_counter() - asked
            done = done or _DONE in seen
            if done and seen.endswith(_LAST_PART):
                break
            if not done and seen.endswith(_LAST_PART) and not count:
                raise SystemExit(f"{self._address} refused: {seen[-500:]!r}")
            rest = seen[seen.rfind(_PIECE_MARK) + len(_PIECE_MARK) if found else 0 :][-200:]
        self._free.append((reader, writer))
        return first, count

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()  # the server has ended one that was idle for long
        return await asyncio.open_connection(*self._address)

    async def close(self) -> None:
        while self._free:
            _, writer = self._free.pop()
            writer.close()
            await writer.wait_closed()
