"""jupyter-ai's magics in a kernel of this environment: ``jupyter_ai.py VERSION MODEL``.

Runs the cells and prints what each showed.
"""

import importlib.metadata
import json
import os
import sys

from jupyter_client.manager import start_new_kernel

BASE_URL = os.environ["OPENAI_BASE_URL"]


def cells(version, model):
    if version == "3":
        yield "%load_ext jupyter_ai_magic_commands"
        yield f"%ai alias mesh openai/{model} --api-base {BASE_URL}"
        yield "%%ai mesh -f text\nWhy is the sky blue?"
        yield "%%ai mesh -f code\nWrite a line of Python."
        yield "%ai alias gone openai/gpt-9 --api-base " + BASE_URL
        yield "%%ai gone -f text\nHello?"
    else:
        options = json.dumps({"openai_api_base": BASE_URL}, separators=(",", ":"))
        yield "%load_ext jupyter_ai_magics"
        yield f"%%ai openai-chat-custom:{model} -f text -m {options}\nWhy is the sky blue?"
        yield f"%ai register mesh openai-chat-custom:{model}"
        yield "%%ai mesh -f code\nWrite a line of Python."
        yield "%%ai openai-chat-custom:gpt-9 -f text\nHello?"


def shown(client, code):
    outputs = []

    def keep(message):
        content = message["content"]
        kind = message["msg_type"]
        if kind == "stream":
            outputs.append([content["name"], content["text"]])
        elif kind in ("execute_result", "display_data"):
            outputs.append(["result", content["data"].get("text/plain", "")])
        elif kind == "error":
            outputs.append(["error", content["ename"], content["evalue"]])

    reply = client.execute_interactive(code, timeout=80, output_hook=keep, allow_stdin=False)
    following = [each.get("text", "") for each in reply["content"].get("payload", [])]
    return {"code": code, "outputs": outputs, "next_cells": following}


if __name__ == "__main__":
    version, model = sys.argv[1:]
    package = "jupyter_ai_magic_commands" if version == "3" else "jupyter_ai_magics"
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        ran = [shown(client, code) for code in cells(version, model)]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    print(json.dumps({"version": importlib.metadata.version(package), "cells": ran}))
