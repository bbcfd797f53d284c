"""A host whose model keeps to a script, in a process of its own: it calls tools as a large one does.

Prints one JSON line with its links: ``plenty`` for any number of requests, ``one`` for one.
"""

from __future__ import annotations

import json
import sys

import qmt_jupyter as qmt
from qmt_jupyter.providers.base import Model, Provider

MODEL = "scripted"
PROMPT_TOKENS = 7


class Scripted(Provider):
    """Calls the first tool it is given, tells what a tool has answered, and else says three words.

    What it says of a city is in the schema's shape where one is asked for.
    """

    models = (Model(MODEL, 4096),)
    slots = 8

    async def chat(self, model, request):
        last = request["messages"][-1]
        if request.get("tools") and last["role"] == "user":
            name = request["tools"][0]["function"]["name"]
            call = {"index": 0, "id": "call_1", "type": "function"}
            deltas = [
                {"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]},
                {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
                {"tool_calls": [{"index": 0, "function": {"arguments": '"Paris"}'}}]},
            ]
            finish = "tool_calls"
        elif last["role"] == "tool":
            deltas, finish = [{"content": "It is "}, {"content": last["content"]}], "stop"
        else:
            deltas, finish = [{"content": word} for word in ("one ", "two ", "three")], "stop"
        for delta in ({"role": "assistant", "content": ""}, *deltas):
            yield {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
        counts = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": len(deltas)}
        total = {"total_tokens": PROMPT_TOKENS + len(deltas)}
        yield {"choices": [], "usage": {**counts, **total}}


def main():
    with qmt.host(Scripted(), name="Scripted", uses=0) as host:
        plenty = host.invite.url
        one = host.new_invite(uses=0, limits=qmt.Limits(requests=1)).url
        print(json.dumps({"plenty": plenty, "one": one}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
