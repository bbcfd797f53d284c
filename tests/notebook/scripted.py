"""A provider that says what it is told to and remembers what it was asked, and a cell's run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from IPython.utils.capture import capture_output

from qmt_jupyter.errors import GenerationFailed
from qmt_jupyter.providers.base import Chunk, Model, Provider


class Scripted(Provider):
    """Says what it is told to, and keeps the requests. ``failing``: gives up after the text."""

    models = (Model("scripted", 100),)
    slots = 4
    device = "paper"

    def __init__(self, *pieces: str, failing: bool = False) -> None:
        self.pieces = pieces or ("Hello ", "there.")
        self.failing = failing
        self.requests: list[Mapping[str, Any]] = []

    async def chat(self, model: str, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        self.requests.append(request)
        for piece in self.pieces:
            delta = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
            yield {"choices": [delta]}
        if self.failing:
            raise GenerationFailed("The engine gave up.")
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        usage = {"prompt_tokens": 3, "completion_tokens": len(self.pieces), "total_tokens": 5}
        yield {"choices": [], "usage": usage}

    def said(self, number: int) -> list[tuple[str, str]]:
        """Roles and texts of one request."""
        return [(m["role"], m["content"]) for m in self.requests[number]["messages"]]


def run(shell, code):
    """Run a cell; returns what it prints, raises what it raises."""
    with capture_output() as captured:
        result = shell.run_cell(code)
    result.raise_error()
    return captured.stdout + captured.stderr
