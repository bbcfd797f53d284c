"""Servers as they run on people's machines: what each says to whom it does not know.

The shapes are those of the products' own documentation and sources. ``LocalServer`` speaks plain
sockets, so that it can also be a server that keeps to no rules.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading


def http(body, status=200, server="uvicorn", **headers):
    """An answer in HTTP/1.1; a body that is no bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = {"Server": server, "Content-Type": "application/json", "Content-Length": len(data)}
    head |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{key}: {value}" for key, value in head.items())]
    return "\r\n".join([*lines, "", ""]).encode() + data


def listed(*names, owner="library", **more):
    data = [{"id": n, "object": "model", "created": 1, "owned_by": owner, **more} for n in names]
    return {"object": "list", "data": data}


def ollama(*names):
    return {
        "/api/version": http({"version": "0.12.6"}),
        "/v1/models": http(listed(*names)),
        "/": http(b"Ollama is running"),
    }


def lm_studio(*names):
    # What it does not know, it answers with status 200.
    return {
        "/lmstudio-greeting": http({"lmstudio": True}),
        "/v1/models": http(listed(*names, owner="organization_owner")),
        None: http({"error": "Unexpected endpoint or method."}),
    }


def llama_server(*names, key=False):
    refused = {"message": "Invalid API Key", "type": "authentication_error", "code": 401}
    models = http({"error": refused}, 401, "llama.cpp") if key else http(
        {"models": [], **listed(*names, owner="llamacpp", meta={"n_ctx_train": 8192})},
        server="llama.cpp",
    )  # fmt: skip
    return {"/health": http({"status": "ok"}, server="llama.cpp"), "/v1/models": models}


def vllm(*names, key=False):
    models = http(listed(*names, owner="vllm", root="x", parent=None, max_model_len=40960))
    return {
        "/version": http({"version": "0.11.0"}),
        "/v1/models": http({"error": "Unauthorized"}, 401) if key else models,
    }


class LocalServer:
    """Answers by ``paths``: bytes, or a call that gets the connection. None: whatever else.

    ``asked`` holds each request as it came. Ends each connection after its answer, unless
    ``keeps_open``.
    """

    def __init__(self, paths, keeps_open=False):
        self.paths = paths
        self.keeps_open = keeps_open
        self.asked = []
        self.closing = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(0.02)
        self.port = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while not self.closing.is_set():
            with contextlib.suppress(TimeoutError, socket.timeout):
                connection, _ = self._listening.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection):
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            request = b""
            while b"\r\n\r\n" not in request and (piece := connection.recv(4096)):
                request += piece
            if not request:
                return
            self.asked.append(request.decode())
            answer = self.paths.get(request.split()[1].decode(), self.paths.get(None))
            if callable(answer):
                answer(connection)
            else:
                connection.sendall(http({"detail": "Not Found"}, 404) if answer is None else answer)
            if self.keeps_open:
                self.closing.wait(10)

    def close(self):
        self.closing.set()
        for thread in self._threads:
            thread.join()
        self._listening.close()
