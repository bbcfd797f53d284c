"""``%qmt_serve``: this kernel's endpoint for other tools, and where its key is put."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from ..errors import NotJoined, OptionInvalid
from ..harmless import printable
from ..settings import user_path, write_private
from .display import is_terminal
from .state import State

if TYPE_CHECKING:
    from ..endpoints import Endpoint

URL_VARIABLE, KEY_VARIABLE = "OPENAI_BASE_URL", "OPENAI_API_KEY"


def serve(state: State, options: argparse.Namespace, shell: Any) -> None:
    """Open the endpoint, or show the open one again; then hand the key over as asked."""
    terms = (options.port, tuple(options.allow_origin))
    if state.endpoint is None:
        if state.host is None and state.mesh is None:
            raise NotJoined("There is nothing to serve: no mesh is joined and no model hosted.")
        from ..api import serve as open_endpoint

        state.endpoint = open_endpoint(state.asked, port=terms[0], allow_origins=terms[1])
        state.endpoint_terms = terms
    elif terms not in (state.endpoint_terms, (0, ())):
        raise OptionInvalid(
            f"This kernel serves at {state.endpoint.base_url} already.",
            next_step="%qmt_serve --stop ends it.",
        )
    print(_introduction(state, state.endpoint))
    _hand_over(state, state.endpoint, options, shell)


def stop(state: State) -> None:
    """Close the endpoint and give the environment back."""
    endpoint, state.endpoint = state.endpoint, None
    _restore(state, endpoint)
    if endpoint is None:
        print("This kernel serves nothing.")
        return
    endpoint.close()
    print("Stopped serving.")


def _introduction(state: State, endpoint: Endpoint) -> str:
    offered = [name for each in state.asked() for name in _names(each)]
    models = ", ".join(printable(name, 80) for name in dict.fromkeys(offered)) or "no model yet"
    return f"Serving {models} at {endpoint.base_url}, to other tools on this machine."


def _names(answering: Any) -> list[str]:
    return [each if isinstance(each, str) else each["name"] for each in answering.models]


def _hand_over(state: State, endpoint: Endpoint, options: argparse.Namespace, shell: Any) -> None:
    """Put the key where it was asked for, or show it where it will not be saved."""
    if options.key_file:
        path = user_path(options.key_file).absolute()
        write_private(path, f"{endpoint.api_key}\n".encode())
        print(f"The key is in {options.key_file}.")
    if options.env:
        _set(state, endpoint)
        print(
            f"{URL_VARIABLE} and {KEY_VARIABLE} are set in this kernel and in what it starts; "
            "%qmt_serve --stop sets them back."
        )
    if options.key_file or options.env:
        return
    if is_terminal(shell):
        print(f"\n  base URL  {endpoint.base_url}\n  key       {endpoint.api_key}\n")
        return
    try:
        from .panels import frozen
        from .panels.key import KeyPanel
    except ImportError as missing:
        # Printed, the key would be saved with the notebook.
        print(
            f"The key is not shown here: {missing.name or 'anywidget'} cannot be imported. "
            "--env sets it in this kernel, --key-file PATH writes it to a file."
        )
        return
    frozen.show(KeyPanel(endpoint))


def _set(state: State, endpoint: Endpoint) -> None:
    ours = {URL_VARIABLE: endpoint.base_url, KEY_VARIABLE: endpoint.api_key}
    if state.environment is None:
        state.environment = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)


def _restore(state: State, endpoint: Endpoint | None) -> None:
    before, state.environment = state.environment, None
    ours = () if endpoint is None else (endpoint.base_url, endpoint.api_key)
    for name, value in (before or {}).items():
        if os.environ.get(name) not in ours:
            continue  # set to something else since
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
