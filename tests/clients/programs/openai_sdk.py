"""The openai SDK as programs use it: ``openai_sdk.py MODEL CASE…``."""

import asyncio
import json
import sys
from typing import Literal

import openai
import pydantic


class City(pydantic.BaseModel):
    size: Literal["small", "large"]
    capital: bool


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
SKY = [{"role": "user", "content": "Why is the sky blue?"}]


def chats(model):
    client = openai.OpenAI()
    listed = client.models.list().data
    whole = client.chat.completions.create(model=model, messages=SKY, max_tokens=12, temperature=0)
    streamed = list(
        client.chat.completions.create(
            model=model,
            messages=SKY,
            max_completion_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in streamed if c.choices)
    with client.chat.completions.stream(
        model=model, messages=SKY, max_tokens=12, temperature=0
    ) as stream:
        followed = "".join(e.delta for e in stream if e.type == "content.delta")
        final = stream.current_completion_snapshot.choices[0].message.content
    return {
        "version": openai.__version__,
        "models": [each.id for each in listed],
        "retrieved": client.models.retrieve(model).id,
        "whole": whole.choices[0].message.content,
        "usage": whole.usage.model_dump(),
        "finish": whole.choices[0].finish_reason,
        "streamed": text,
        "pieces": len(streamed),
        "streamed_usage": streamed[-1].usage.model_dump(),
        "followed": followed,
        "final": final,
    }


def at_once(model):
    async def main():
        async with openai.AsyncOpenAI() as client:

            async def one(number):
                stream = await client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": f"Count from {number}."}],
                    max_tokens=8,
                    stream=True,
                )
                return [chunk.choices[0].finish_reason async for chunk in stream][-1]

            return await asyncio.gather(*(one(number) for number in range(8)))

    return asyncio.run(main())


def structured(model):
    parsed = openai.OpenAI().chat.completions.parse(
        model=model,
        messages=[{"role": "user", "content": "Describe the city of Paris as JSON."}],
        response_format=City,
        max_tokens=200,
        temperature=0,
        seed=1,
    )
    return parsed.choices[0].message.parsed.model_dump()


def embeddings(model):
    client = openai.OpenAI()
    # The SDK asks for base64 by itself, which a list of floats must equal.
    first = client.embeddings.create(model=model, input=["the sea", "a lighthouse"])
    second = client.embeddings.create(model=model, input="the sea", encoding_format="float")
    return {
        "sizes": [len(each.embedding) for each in first.data],
        "difference": max(
            abs(a - b)
            for a, b in zip(first.data[0].embedding, second.data[0].embedding, strict=True)
        ),
        "usage": first.usage.model_dump(),
    }


def tools(model):
    client = openai.OpenAI()
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    asked = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    call = asked.choices[0].message.tool_calls[0]
    messages.append(asked.choices[0].message)
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "21 degrees."})
    told = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    with client.chat.completions.stream(
        model=model, messages=messages[:1], tools=[WEATHER], tool_choice="auto"
    ) as stream:
        final = stream.get_final_completion().choices[0].message.tool_calls[0].function
    return {
        "finish": asked.choices[0].finish_reason,
        "name": call.function.name,
        "arguments": json.loads(call.function.arguments),
        "told": told.choices[0].message.content,
        "streamed": [final.name, json.loads(final.arguments)],
    }


def errors(model):
    client = openai.OpenAI()

    def error(call):
        try:
            call()
        except openai.APIStatusError as raised:
            return [type(raised).__name__, raised.status_code, raised.code, raised.param]
        return None

    ask = client.chat.completions.create
    return {
        "key": error(lambda: openai.OpenAI(api_key="sk-of-another").models.list()),
        "model": error(lambda: ask(model="gpt-9", messages=SKY)),
        "parameter": error(lambda: ask(model=model, messages=SKY, n=2)),
        "image": error(
            lambda: ask(
                model=model,
                messages=[
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/a.png"}}
                        ],
                    }
                ],
            )
        ),
        "path": error(lambda: client.files.list()),
    }


def spends(model):
    """Two requests where one is allowed; the SDK must not try the second one again."""
    client = openai.OpenAI(max_retries=5)
    client.chat.completions.create(model=model, messages=SKY)
    try:
        client.chat.completions.create(model=model, messages=SKY)
    except openai.RateLimitError as error:
        return [type(error).__name__, error.status_code, error.code, error.message]


def host_gone(model):
    try:
        openai.OpenAI(max_retries=0).chat.completions.create(model=model, messages=SKY)
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.code, error.message]


CASES = (chats, at_once, structured, embeddings, tools, errors, spends, host_gone)

if __name__ == "__main__":
    model, *names = sys.argv[1:]
    print(json.dumps({case.__name__: case(model) for case in CASES if case.__name__ in names}))
