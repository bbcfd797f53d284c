"""``qmt serve``: an OpenAI-compatible endpoint on this machine, in front of a mesh."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import time
from typing import TYPE_CHECKING

from .chat_command import links_to_join, say_who_is_absent
from .harmless import printable
from .settings import user_path, write_private
from .terminal import Output

if TYPE_CHECKING:
    from .api import Mesh
    from .endpoints import Endpoint


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Join, serve until interrupted, leave."""
    from .api import join

    with join(links_to_join(arguments), name=arguments.name, timeout=arguments.timeout) as mesh:
        origins = arguments.allow_origin
        with mesh.serve(port=arguments.port, allow_origins=origins) as endpoint:
            if arguments.key_file:
                path = user_path(arguments.key_file).absolute()
                write_private(path, f"{endpoint.api_key}\n".encode())
            # From the first word on, an interrupt is how it is meant to end.
            with contextlib.suppress(KeyboardInterrupt):
                announce(mesh, endpoint, arguments.key_file, output)
                say_who_is_absent(mesh, output)
                while True:
                    time.sleep(0.2)
    output.event("stopped", "\nStopped serving.")
    return 0


def announce(mesh: Mesh, endpoint: Endpoint, key_file: str | None, output: Output) -> None:
    """Say where it is and how it is used; the key only where no file takes it."""
    models = list(dict.fromkeys(model["name"] for model in mesh.models))
    if output.as_json:
        output.json(
            {
                "event": "ready",
                "base_url": endpoint.base_url,
                "api_key": None if key_file else endpoint.api_key,
                "key_file": key_file,
                "models": models,
            }
        )
        return
    meshes = ", ".join(each["mesh"] for each in mesh.status())
    shown = [printable(name, 80) for name in models]
    key = f"in {key_file}" if key_file else endpoint.api_key
    model = shown[0] if shown else "MODEL"
    print(f"Serving {', '.join(shown) or 'no model yet'} of {meshes}; the host can read")
    print("what your tools ask. Only this machine can use it, with this key:\n")
    print(f"  base URL  {endpoint.base_url}\n  key       {key}\n")
    print(f'Try:  curl {endpoint.base_url}/chat/completions -H "Authorization: Bearer KEY" \\')
    print('        -H "Content-Type: application/json" \\')
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hi"}]})
    print(f"        -d {shlex.quote(body)}")
    print("Ctrl-C stops serving.", flush=True)
