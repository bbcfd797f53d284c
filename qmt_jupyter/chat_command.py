"""``qmt chat``: one question to a host, or to whichever of several can take it."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from . import flags, words
from .errors import NotJoined, OptionInvalid
from .harmless import plain
from .terminal import Output

if TYPE_CHECKING:
    from .api import Answer, Mesh


def run_chat(arguments: argparse.Namespace, output: Output) -> int:
    """``qmt chat``: ask one question and stream the answer."""
    from .api import join

    prompt = " ".join(arguments.prompt)
    if not prompt and not sys.stdin.isatty():
        prompt = sys.stdin.read()
    if not prompt.strip():
        raise OptionInvalid("There is nothing to ask.", next_step="Give a prompt.")
    links = links_to_join(arguments, arguments.host)
    with join(links, name=arguments.name, timeout=arguments.timeout) as mesh:
        say_who_is_absent(mesh, output)
        asked = time.perf_counter()
        answer = mesh.chat(
            prompt,
            model=arguments.model,
            host=arguments.host,
            system=arguments.system,
            temperature=arguments.temperature,
            max_tokens=arguments.max_tokens,
            seed=arguments.seed,
        )
        stream(answer, asked, output)
    return 0


def links_to_join(arguments: argparse.Namespace, host: str | None = None) -> str | list[str]:
    """The links that were given, or the one that was remembered (of ``host``, where that is named).

    Where there is none, the word for the services of the JupyterHub that this server belongs to.
    Raises :class:`~qmt_jupyter.errors.NotJoined` where there is none.
    """
    from .home import remembered
    from .settings import HUB, is_on_hub

    urls = flags.links_from(arguments.join, arguments.file)
    if len(urls) > 1:
        return urls
    # One alone says by itself what is wrong with it.
    url = urls[0] if urls else remembered(host) or (HUB if is_on_hub() else None)
    if url is None:
        raise NotJoined(
            "No mesh has been joined.", next_step="Give --join LINK, or run qmt join first."
        )
    return url


def say_who_is_absent(mesh: Mesh, output: Output) -> None:
    """Say which of several hosts did not admit, and why."""
    for each in mesh.status():
        if each["problem"] and output.as_json:
            output.json(
                {"event": "absent", "host": each["host"], "mesh": each["mesh"],
                 "sentence": each["problem"]}
            )  # fmt: skip
        elif each["problem"]:
            said = f"qmt: {words.called_in(each)} is not there: {each['problem']}"
            print(said, file=sys.stderr, flush=True)


def stream(answer: Answer, asked: float, output: Output) -> None:
    """Print the answer as it comes, then what it took."""
    first: float | None = None
    waiting: int | None = None
    passed = 0
    for piece in answer.updates():
        if not piece:
            if len(answer.passed) != passed:
                passed = len(answer.passed)
                say_rerouted(answer, output)
            if answer.patience is not None:
                say_away(answer, output)
            if answer.position is not None and answer.position != waiting:
                waiting = answer.position
                if output.as_json:
                    output.json({"event": "queued", "position": waiting})
                elif sys.stderr.isatty():
                    print(f"waiting, {waiting} before you", file=sys.stderr, flush=True)
            continue
        first = first or time.perf_counter()
        if output.as_json:
            output.json({"event": "delta", "text": piece})
        else:
            sys.stdout.write(plain(piece))
            sys.stdout.flush()
    ended = time.perf_counter()
    tokens = (answer.usage or {}).get("completion_tokens", 0)
    spent = ended - (first or ended)
    output.event(
        "done",
        "",
        model=answer.model,
        host=answer.host,
        finish_reason=answer.finish_reason,
        usage=answer.usage,
        time_to_first_token_s=round(first - asked, 4) if first else None,
        tokens_per_s=round((tokens - 1) / spent, 1) if tokens > 1 and spent > 0 else None,
    )
    if not output.as_json:
        print(flush=True)


def say_away(answer: Answer, output: Output) -> None:
    """Say that the host is away and waited for."""
    if output.as_json:
        output.json({"event": "away", "patience_s": round(answer.patience or 0, 1)})
    elif sys.stderr.isatty():
        print("the host is away, waiting for it", file=sys.stderr, flush=True)


def say_rerouted(answer: Answer, output: Output) -> None:
    """Say that a host could not take the request, and who is asked now."""
    if output.as_json:
        last = answer.passed[-1]
        output.json(
            {"event": "rerouted", "from": last.host_id, "code": last.code, "host": answer.host}
        )
    elif sys.stderr.isatty():
        print(words.rerouted_phrase(answer), file=sys.stderr, flush=True)
