"""LiteLLM's client as programs use it: ``litellm_client.py MODEL CASE…``."""

import asyncio
import importlib.metadata
import json
import os
import sys

import litellm

BASE = {"api_base": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"]}
SKY = [{"role": "user", "content": "Why is the sky blue?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def chats(model):
    ask = {"model": f"openai/{model}", "messages": SKY, "max_tokens": 12, "temperature": 0}
    whole = litellm.completion(**ask, **BASE)
    streamed = list(
        litellm.completion(**ask, **BASE, stream=True, stream_options={"include_usage": True})
    )

    async def awaited():
        return await litellm.acompletion(**ask, **BASE)

    return {
        "version": importlib.metadata.version("litellm"),
        "whole": whole.choices[0].message.content,
        "usage": whole.usage.completion_tokens,
        "streamed": "".join(c.choices[0].delta.content or "" for c in streamed if c.choices),
        "pieces": len(streamed),
        "awaited": asyncio.run(awaited()).choices[0].message.content,
    }


def tools(model):
    asked = litellm.completion(model=f"openai/{model}", messages=SKY, tools=[WEATHER], **BASE)
    (call,) = asked.choices[0].message.tool_calls
    return [call.function.name, json.loads(call.function.arguments)]


def embeddings(model):
    made = litellm.embedding(model=f"openai/{model}", input=["the sea", "a lighthouse"], **BASE)
    return [len(each["embedding"]) for each in made.data]


def errors(model):
    def error(**changed):
        ask = {"model": f"openai/{model}", "messages": SKY, **BASE, **changed}
        try:
            litellm.completion(**ask)
        except Exception as raised:
            return [type(raised).__name__, raised.status_code]
        return None

    return {"key": error(api_key="sk-of-another"), "model": error(model="openai/gpt-9")}


CASES = (chats, tools, embeddings, errors)

if __name__ == "__main__":
    model, *names = sys.argv[1:]
    litellm.suppress_debug_info = True
    print(json.dumps({case.__name__: case(model) for case in CASES if case.__name__ in names}))
