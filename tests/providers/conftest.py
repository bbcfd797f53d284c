"""Parts that the provider tests share: the demo's model, a loop, an index and a hub of our own."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.server
import io
import struct
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmt_jupyter.providers.model_files import ModelFile, locate_model
from tests.conftest import MODELS

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Kept between runs, so that the model is fetched once and not by every run."""
    return MODELS


@pytest.fixture(scope="session")
def smollm2(models_dir: Path) -> ModelFile:
    return locate_model("smollm2", models_dir)


@pytest.fixture(scope="module")
def run():
    """Run a coroutine in the module's loop, which outlives a test as a provider does."""
    loop = asyncio.new_event_loop()
    yield loop.run_until_complete
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def gguf(*pairs: tuple[str, int, bytes], version: int = 3, count: int | None = None) -> bytes:
    """The head of a GGUF file from (key, kind, encoded value), without any tensor."""
    head = b"GGUF" + struct.pack("<IQQ", version, 0, len(pairs) if count is None else count)
    for key, kind, value in pairs:
        head += struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value
    return head


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def model_head(**numbers: int) -> bytes:
    """The head of a made-up llama of a plausible shape; ``numbers`` override it."""
    shape = {
        "block_count": 2,
        "context_length": 2048,
        "embedding_length": 64,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        **numbers,
    }
    pairs = [("general.architecture", 8, text("llama"))]
    pairs += [(f"llama.{name}", 4, struct.pack("<I", number)) for name, number in shape.items()]
    return gguf(*pairs)


@pytest.fixture
def write_model(tmp_path: Path):
    def write(name: str = "Tiny-Q4_0.gguf", data: bytes | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model_head() if data is None else data)
        return path

    return write


class Web:
    """A small HTTP server on loopback: an index of packages, or a hub of models.

    ``files`` maps a path to (body, headers, status). With ``slow`` set, bodies trickle.
    ``asked`` lists what was asked for.
    """

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, dict[str, str], int]] = {}
        self.asked: list[tuple[str, str]] = []
        self.slow = threading.Event()
        self.closing = threading.Event()
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def _answer(self, *, with_body: bool) -> None:
                path = self.path.partition("?")[0]
                web.asked.append((self.command, path))
                body, headers, status = web.files.get(path, (b"", {}, 404))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if not with_body:
                    return
                try:
                    for start in range(0, len(body), 1 << 16):
                        self.wfile.write(body[start : start + (1 << 16)])
                        while web.slow.is_set() and start and not web.closing.wait(0.05):
                            # Two blocks, then a silence that only a stop can end.
                            pass
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # a client that was stopped hangs up; that is the test

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self._thread.start()

    def count(self, suffix: str, method: str = "GET") -> int:
        return sum(m == method and path.endswith(suffix) for m, path in self.asked)

    def wait_for(self, suffix: str) -> None:
        deadline = time.monotonic() + 30
        while not self.count(suffix):
            assert time.monotonic() < deadline, f"nobody asked for {suffix}: {self.asked}"
            time.sleep(0.01)

    def close(self) -> None:
        self.closing.set()
        self.slow.clear()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


@pytest.fixture
def closed_port() -> str:
    """The address of a port where nobody listens."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        return f"http://127.0.0.1:{server.server_port}"


def wheel(name: str, version: str, members: dict[str, bytes]) -> bytes:
    """A wheel with ``members``, and the requirement of one that exists nowhere."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "Requires-Dist: exists-nowhere-at-all\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    everything = {
        **members,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": tags.encode(),
    }
    records = "".join(
        f"{path},sha256="
        f"{base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},"
        f"{len(data)}\n"
        for path, data in everything.items()
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in everything.items():
            archive.writestr(path, data)
        archive.writestr(f"{info}/RECORD", records + f"{info}/RECORD,,\n")
    return buffer.getvalue()
