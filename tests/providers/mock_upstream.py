"""A server that speaks OpenAI's protocol as the real ones do, their bad days included.

What it does is chosen by the model that is asked. It remembers every request, with its headers.
"""

from __future__ import annotations

import http.server
import json
import threading
import time

MODELS = [
    "plain", "tools", "reasoning", "no-usage", "no-stream-options", "slow", "endless",
    "busy-once", "busy-long", "down-once", "down", "echo-400", "echo-500", "forbidden", "context",
    "breaks", "fails-midway", "not-json", "not-chunks", "no-end", "hangs-up", "redirects",
    "newer", "quotes",
]  # fmt: skip


class MockUpstream:
    """Runs on loopback until :meth:`close`. ``key`` None takes everybody."""

    def __init__(self, key: str | None = None, models: list[str] = MODELS) -> None:
        self.key = key
        self.models = models
        self.asked: list[tuple[str, dict[str, str], dict]] = []
        self.contexts: dict[str, object] = {}
        self.hung_up = threading.Event()
        self.closing = threading.Event()
        mock = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                if self.allowed({}):
                    data = [
                        {"id": name, "object": "model", **self.context_of(name)}
                        for name in mock.models
                    ]
                    self.answer(200, {"object": "list", "data": data})

            def do_POST(self):
                size = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(size))
                if not self.allowed(body):
                    return
                if self.path.endswith("/embeddings"):
                    getattr(self, "embed_" + body["model"].replace("-", "_"), self.embed_plain)(
                        body
                    )
                else:
                    getattr(self, "do_" + body["model"].replace("-", "_"), self.do_plain)(body)

            def context_of(self, name):
                return {"max_model_len": mock.contexts[name]} if name in mock.contexts else {}

            def allowed(self, body):
                mock.asked.append((self.path, dict(self.headers), body))
                sent = self.headers.get("Authorization", "")
                if mock.key is None or sent == f"Bearer {mock.key}":
                    return True
                self.answer(401, {"error": {"message": f"Incorrect API key provided: {sent}"}})
                return False

            def answer(self, status, body, **headers):
                data = json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def begin(self, promised=None):
                self.send_response(200)
                if promised:
                    self.send_header("Content-Length", str(promised))
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True

            def say(self, text):
                try:
                    self.wfile.write(text.encode())
                    self.wfile.flush()
                except OSError:
                    mock.hung_up.set()
                    raise

            def piece(self, delta, finish=None, **more):
                choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
                chunk = {
                    "id": "x",
                    "object": "chat.completion.chunk",
                    "model": "m",
                    "choices": [choice],
                }
                self.say(f"data: {json.dumps(chunk)}\n\n")

            def usage(self, prompt=7, completion=3):
                counts = {"prompt_tokens": prompt, "completion_tokens": completion}
                self.say(f"data: {json.dumps({'choices': [], 'usage': counts})}\n\n")

            def end(self):
                self.say("data: [DONE]\n\n")

            def words(self, finish="stop", promised=None):
                self.begin(promised)
                self.say(": keep alive\n\n")
                self.piece({"role": "assistant", "content": ""})
                for word in ("one ", "two ", "three"):
                    self.piece({"content": word})
                if finish:
                    self.piece({}, finish)

            def do_plain(self, body):
                self.words()
                self.usage()
                self.end()

            def embed_plain(self, body, **changes):
                texts = body["input"]
                data = [
                    {"object": "embedding", "index": n, "embedding": [len(text), n, 0.5]}
                    for n, text in enumerate(texts)
                ]
                usage = {"prompt_tokens": 2 * len(texts), "total_tokens": 2 * len(texts)}
                self.answer(200, {"object": "list", "data": data, "usage": usage, **changes})

            def embed_no_usage(self, body):
                self.embed_plain(body, usage=None)

            def embed_busy_once(self, body):
                if self.times(body) == 1:
                    self.do_busy_once(body)
                else:
                    self.embed_plain(body)

            def embed_busy_long(self, body):
                self.do_busy_long(body)

            def embed_down(self, body):
                self.do_down(body)

            def embed_echo_400(self, body):
                self.do_echo_400(body)

            def embed_context(self, body):
                self.do_context(body)

            def embed_hangs_up(self, body):
                self.do_hangs_up(body)

            def embed_redirects(self, body):
                self.do_redirects(body)

            def embed_not_json(self, body):
                self.begin()
                self.say("{not json")

            def embed_not_chunks(self, body):
                self.embed_plain(body, data=[7, {"index": []}])

            def embed_breaks(self, body):
                self.embed_plain(body, data=[])

            def do_tools(self, body):
                self.begin()
                call = {"index": 0, "id": "c1", "type": "function"}
                self.piece(
                    {"tool_calls": [{**call, "function": {"name": "f", "arguments": '{"a"'}}]}
                )
                self.piece({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]})
                self.piece({}, "tool_calls", logprobs={"content": [{"token": "x", "logprob": -1}]})
                self.usage()
                self.end()

            def do_reasoning(self, body):
                self.begin()
                self.piece({"reasoning_content": "hmm"})
                self.piece({"content": "yes"})
                self.piece({}, "stop")
                self.usage()
                self.end()

            def do_no_usage(self, body):
                self.words()
                self.end()

            def do_no_stream_options(self, body):
                if "stream_options" in body:
                    self.answer(400, {"error": {"message": "Unknown parameter: stream_options"}})
                else:
                    self.do_no_usage(body)

            def do_newer(self, body):
                if "max_tokens" in body:
                    said = (
                        "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
                    )
                    self.answer(400, {"error": {"message": said}})
                else:
                    self.do_plain(body)

            def do_quotes(self, body):
                if "tools" in body:
                    name = body["tools"][0]["function"]["name"]
                    self.answer(400, {"error": {"message": f"Invalid tool name: {name}"}})
                else:
                    self.do_plain(body)

            def do_slow(self, body):
                self.begin()
                mock.closing.wait(1.5)
                self.piece({"content": "late"}, "stop")
                self.usage()
                self.end()

            def do_endless(self, body):
                self.begin()
                while not mock.closing.is_set():
                    self.piece({"content": "on and on "})
                    time.sleep(0.01)

            def times(self, body):
                return sum(asked.get("model") == body["model"] for _, _, asked in mock.asked)

            def do_busy_once(self, body):
                if self.times(body) == 1:
                    self.answer(429, {"error": {"message": "slow down"}}, Retry_After="1")
                else:
                    self.do_plain(body)

            def do_busy_long(self, body):
                self.answer(429, {"error": {"message": "quota"}}, Retry_After="3600")

            def do_down_once(self, body):
                if self.times(body) == 1:
                    self.answer(503, {"error": {"message": "starting"}})
                else:
                    self.do_plain(body)

            def do_down(self, body):
                self.answer(502, {"error": {"message": "bad gateway"}})

            def echoed(self):
                return {"error": {"message": f"what is {self.headers.get('Authorization')}?"}}

            def do_echo_400(self, body):
                self.answer(400, self.echoed(), X_Your_Key=self.headers.get("Authorization", ""))

            def do_echo_500(self, body):
                self.answer(500, self.echoed(), X_Your_Key=self.headers.get("Authorization", ""))

            def do_forbidden(self, body):
                self.answer(403, self.echoed())

            def do_context(self, body):
                self.answer(400, {"error": {"message": "maximum context length is 10 tokens"}})

            def do_breaks(self, body):
                self.words(finish=None, promised=100_000)

            def do_fails_midway(self, body):
                self.words(finish=None)
                self.say(f"data: {json.dumps(self.echoed())}\n\n")
                self.end()

            def do_not_json(self, body):
                self.words(finish=None)
                self.say("data: {not json\n\n")

            def do_not_chunks(self, body):
                self.begin()
                for nonsense in (
                    "[]",
                    "5",
                    '{"choices": 3}',
                    '{"choices": [7, {"delta": 1}]}',
                    "null",
                ):
                    self.say(f"data: {nonsense}\n\n")

            def do_no_end(self, body):
                self.words(finish=None)

            def do_hangs_up(self, body):
                self.close_connection = True
                self.connection.close()

            def do_redirects(self, body):
                self.answer(307, {}, Location=f"http://127.0.0.1:{mock.port}/elsewhere")

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # a client that hangs up is part of the job

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self._thread.start()

    def bodies(self, model):
        return [body for _, _, body in self.asked if body.get("model") == model]

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()
