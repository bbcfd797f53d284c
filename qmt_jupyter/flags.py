"""The flags that the command line and the magics share, defined once and spelled alike."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from .errors import OptionInvalid

# Repeated here so that defining a flag imports nothing heavy; a test keeps them equal to nodes'.
DEFAULT_MODEL = "smollm2"
ENGINES = ("auto", "xllamacpp", "llama-cpp-python")
DEFAULT_USES = 1
DEFAULT_TTL = "24h"
DEFAULT_SLOTS = 4
DEFAULT_RELAY = "none"
DEFAULT_DEADLINE = 10.0


class Parser(argparse.ArgumentParser):
    """Raises :class:`~qmt_jupyter.errors.OptionInvalid` where argparse would end the process."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing usage and exiting."""
        raise OptionInvalid(
            f"{self.prog}: {message}.", next_step=f"{self.prog} --help shows what there is."
        )


def add_grant(parser: argparse.ArgumentParser) -> None:
    """What an invite grants."""
    parser.add_argument("--name", metavar="NAME", help="the mesh's name (default: this machine's)")
    parser.add_argument(
        "--uses",
        type=int,
        default=DEFAULT_USES,
        metavar="N",
        help=f"how many guests the invite admits; 0: any number (default {DEFAULT_USES})",
    )
    parser.add_argument(
        "--ttl",
        default=DEFAULT_TTL,
        metavar="TIME",
        help=f"how long it lives: 90s, 15m, 24h, 7d or none (default {DEFAULT_TTL})",
    )
    limits = parser.add_argument_group(
        "limits of the invite, for all its guests together (default: none)"
    )
    for flag, text in (
        ("--requests", "how many requests in all"),
        ("--tokens", "how many tokens in all, prompts and answers"),
        ("--requests-per-minute", "how many requests in any minute"),
        ("--tokens-per-minute", "how many tokens in any minute"),
        ("--concurrent", "how many requests at once, waiting ones included"),
        ("--longest-answer", "how many tokens an answer may have"),
    ):
        limits.add_argument(flag, type=int, metavar="N", help=text)
    limits.add_argument(
        "--allow-model",
        action="append",
        metavar="NAME",
        help="a model that may be asked; repeat it for more (default: all)",
    )
    limits.add_argument(
        "--per-guest", action="store_true", help="the limits hold for each guest by itself"
    )


def limits(options: argparse.Namespace) -> dict[str, Any]:
    """The limits that were given, as arguments of :class:`qmt_jupyter.Limits`."""
    return {
        "requests": options.requests,
        "tokens": options.tokens,
        "requests_per_minute": options.requests_per_minute,
        "tokens_per_minute": options.tokens_per_minute,
        "concurrent": options.concurrent,
        "answer_tokens": options.longest_answer,
        "models": tuple(options.allow_model or ()),
        "per_guest": options.per_guest,
    }


def add_host(parser: argparse.ArgumentParser) -> None:
    """What is shared, and on which terms."""
    add_models(parser)
    add_grant(parser)
    add_engine(parser)


def add_models(
    parser: argparse.ArgumentParser,
    otherwise: str = f"what runs here is listed, else {DEFAULT_MODEL} is shared",
) -> None:
    """What is shared; ``otherwise`` says what where nothing is named."""
    parser.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help="a .gguf file, hf:OWNER/NAME/FILE.gguf, smollm2, or NAME:REST for a provider plugin; "
        f"repeat it for more (default: {otherwise})",
    )
    parser.add_argument(
        "--as",
        dest="aliases",
        action="append",
        default=[],
        metavar="NAME[=MODEL]",
        help="what guests are to see a model called; repeat it for more",
    )
    parser.add_argument(
        "--engine",
        default=ENGINES[0],
        metavar="ENGINE",
        help=f"what runs model files: {', '.join(ENGINES)} (default {ENGINES[0]})",
    )
    upstream = parser.add_argument_group("a server that runs already, and whose key stays here")
    upstream.add_argument(
        "--upstream",
        action="append",
        metavar="URL",
        help="share models of an OpenAI-compatible server; repeat it for more",
    )
    upstream.add_argument(
        "--upstream-model",
        action="append",
        default=[],
        metavar="NAME",
        help="which of its models; * and ? stand for more; repeat it",
    )
    upstream.add_argument(
        "--upstream-key",
        action="append",
        metavar="SOURCE",
        help="where its key is: env:NAME, keyring:SERVICE or prompt; never the key itself; for "
        "several upstreams once for each, in the same order (none for one without)",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """How it runs, and where guests reach it."""
    parser.add_argument(
        "--slots",
        type=int,
        default=DEFAULT_SLOTS,
        metavar="N",
        help=f"requests that run side by side (default {DEFAULT_SLOTS})",
    )
    parser.add_argument(
        "--context", type=int, metavar="TOKENS", help="context of each slot, in tokens"
    )
    parser.add_argument(
        "--gpu-layers",
        type=int,
        metavar="N",
        help="layers of the model on the GPU; 0: none (default: as many as fit)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of the engine")
    parser.add_argument(
        "--embeddings", action="store_true", help="have a model that chats make embeddings too"
    )
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="UDP port (default: a free one)"
    )
    add_relay(parser)


def add_relay(parser: argparse.ArgumentParser) -> None:
    """What guests come through that no direct way leads to."""
    parser.add_argument(
        "--relay",
        default=DEFAULT_RELAY,
        metavar="none|public|URL",
        help="the relay for guests on other networks; the invites name it "
        f"(default {DEFAULT_RELAY})",
    )


def host_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What was given, as arguments of :func:`qmt_jupyter.host`, but for the limits."""
    return {
        "name": options.name,
        "uses": options.uses,
        "ttl": options.ttl,
        **engine_arguments(options),
    }


def engine_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_models` and :func:`add_engine` took, as such arguments."""
    return {
        "model": options.model,
        "slots": options.slots,
        "context": options.context,
        "gpu_layers": options.gpu_layers,
        "threads": options.threads,
        "port": options.port,
        "upstream": options.upstream,
        "upstream_models": options.upstream_model,
        "upstream_key": options.upstream_key,
        "embeddings": options.embeddings,
        "engine": options.engine,
        "aliases": options.aliases,
        "relay": options.relay,
    }


def names_nothing(options: argparse.Namespace) -> bool:
    """Whether nothing was said about what to share."""
    return not (options.model or options.upstream or options.upstream_model or options.upstream_key)


def add_chat(parser: argparse.ArgumentParser) -> None:
    """How the answer is to be."""
    parser.add_argument("--model", metavar="NAME", help="the model to ask (default: the first)")
    parser.add_argument(
        "--host",
        metavar="HOST",
        help="ask this host and no other: its mesh's name, its peer id, or the id's first or last "
        "characters (default: the least loaded that has the model, or the next where it cannot)",
    )
    parser.add_argument("--system", metavar="TEXT", help="what the model should be and do")
    parser.add_argument("--temperature", type=float, metavar="X", help="0: always the likeliest")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest answer, in tokens")
    parser.add_argument("--seed", type=int, metavar="N", help="same seed, same answer")


def add_link_sources(parser: argparse.ArgumentParser) -> None:
    """Where an invite link comes from when it is not typed, and how to join with it."""
    parser.add_argument("--file", metavar="PATH", help="read the invite link from a file")
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_DEADLINE,
        metavar="SECONDS",
        help=f"how long to look for the host (default {DEFAULT_DEADLINE:g})",
    )
    parser.add_argument(
        "--name", metavar="NAME", help="what the host is to see you called (default: nothing)"
    )


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Where an endpoint for other tools listens, who may use it, and where its key goes."""
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="TCP port on 127.0.0.1 (default: free one)"
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a web page that may use it, e.g. http://localhost:3000; repeat it (default: none)",
    )
    parser.add_argument(
        "--key-file",
        metavar="PATH",
        help="write the key to a file that only you can read, and show it nowhere",
    )


def links_from(arguments: list[str] | None, file: str | None) -> list[str]:
    """The links that were given: all of ``arguments``, and the one in a file.

    Where there are none of these the one in ``QMT_INVITE``. Raises like :func:`link_from`.
    """
    given = list(arguments or [])
    if file or not given:
        found = link_from(None, file)
        given += [found] if found else []
    return given


def add_join(parser: argparse.ArgumentParser) -> None:
    """Which hosts are joined."""
    parser.add_argument(
        "--join",
        metavar="LINK",
        action="append",
        help="the invite link (better: --file), or hub on a JupyterHub with a service; repeat it "
        "for more hosts",
    )
    add_link_sources(parser)


def add_which(parser: argparse.ArgumentParser) -> None:
    """What is to be revoked."""
    parser.add_argument(
        "which", metavar="ID", help="the invite's or guest's id, or its first characters"
    )


def link_from(argument: str | None, file: str | None) -> str | None:
    """The link that was given: as an argument, in a file, or in ``QMT_INVITE``; None if none was.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid` where the file cannot be read.
    """
    import os

    from .settings import INVITE_VARIABLE, user_path

    if argument:
        return argument
    if file:
        try:
            with user_path(file).open(encoding="utf-8") as handle:
                return handle.read(8192).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise OptionInvalid(
                f"The invite link cannot be read from {file} ({reason}).",
                next_step="Give the file that the host sent you.",
            ) from None
    return os.environ.get(INVITE_VARIABLE, "").strip() or None


def link_or_hub(argument: str | None, file: str | None) -> str | None:
    """As :func:`link_from`; ``hub`` instead of none where a JupyterHub with a service is there."""
    from .settings import HUB, is_on_hub

    return link_from(argument, file) or (HUB if is_on_hub() else None)
