"""LangChain's OpenAI classes as programs use them: ``langchain_openai_client.py MODEL CASE…``."""

import asyncio
import importlib.metadata
import json
import sys
from typing import Literal

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    size: Literal["small", "large"]
    capital: bool


class Weather(BaseModel):
    """A city whose weather is asked for."""

    city: str


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"21 degrees in {city}."


def chats(model):
    chat = ChatOpenAI(model=model, max_tokens=12, temperature=0, stream_usage=True)
    whole = chat.invoke("Why is the sky blue?")
    streamed = list(chat.stream("Why is the sky blue?"))
    sum_of = streamed[0]
    for chunk in streamed[1:]:
        sum_of += chunk
    return {
        "version": importlib.metadata.version("langchain-openai"),
        "whole": whole.content,
        "usage": whole.usage_metadata,
        "streamed": sum_of.content,
        "pieces": len(streamed),
        "streamed_usage": sum_of.usage_metadata,
        "batch": [each.content for each in chat.batch(["One?", "Two?", "Three?"])],
        "awaited": asyncio.run(chat.ainvoke("Hello?")).content,
    }


def structured(model):
    chat = ChatOpenAI(model=model, max_tokens=200, temperature=0)
    found = chat.with_structured_output(City, method="json_schema").invoke(
        "Describe Paris as JSON."
    )
    return found.model_dump()


def by_tool(model):
    chat = ChatOpenAI(model=model)
    found = chat.with_structured_output(Weather, method="function_calling").invoke("Paris?")
    return found.model_dump()


def tools(model):
    chat = ChatOpenAI(model=model).bind_tools([weather])
    messages = [("user", "What is the weather in Paris?")]
    asked = chat.invoke(messages)
    answers = [weather.invoke(call) for call in asked.tool_calls]
    told = chat.invoke([*messages, asked, *answers])
    return {"calls": [[c["name"], c["args"]] for c in asked.tool_calls], "told": told.content}


def embeddings(model):
    # Else it cuts texts into tokens by a vocabulary that it would have to download.
    maker = OpenAIEmbeddings(model=model, check_embedding_ctx_length=False)
    texts = maker.embed_documents(["the sea", "a lighthouse"])
    return {"sizes": [len(each) for each in texts], "query": len(maker.embed_query("the sea"))}


CASES = (chats, structured, by_tool, tools, embeddings)

if __name__ == "__main__":
    model, *names = sys.argv[1:]
    print(json.dumps({case.__name__: case(model) for case in CASES if case.__name__ in names}))
