"""The flags that the command line and the magics share, defined once and spelled alike."""

from __future__ import annotations

import argparse
from typing import NoReturn

from .errors import OptionInvalid

# Repeated here so that defining a flag imports nothing heavy; a test keeps them equal to nodes'.
DEFAULT_MODEL = "smollm2"
DEFAULT_USES = 1
DEFAULT_TTL = "24h"
DEFAULT_SLOTS = 4
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


def add_host(parser: argparse.ArgumentParser) -> None:
    """What is shared, and on which terms."""
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"a .gguf file, hf:OWNER/NAME/FILE.gguf, or smollm2 (default {DEFAULT_MODEL})",
    )
    add_grant(parser)
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
        "--port", type=int, default=0, metavar="N", help="UDP port (default: a free one)"
    )


def add_chat(parser: argparse.ArgumentParser) -> None:
    """How the answer is to be."""
    parser.add_argument("--model", metavar="NAME", help="the model to ask (default: the first)")
    parser.add_argument("--system", metavar="TEXT", help="what the model should be and do")
    parser.add_argument("--temperature", type=float, metavar="X", help="0: always the likeliest")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest answer, in tokens")
    parser.add_argument("--seed", type=int, metavar="N", help="same seed, same answer")


def add_link_sources(parser: argparse.ArgumentParser) -> None:
    """Where an invite link comes from when it is not typed."""
    parser.add_argument("--file", metavar="PATH", help="read the invite link from a file")
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_DEADLINE,
        metavar="SECONDS",
        help=f"how long to look for the host (default {DEFAULT_DEADLINE:g})",
    )


def link_from(argument: str | None, file: str | None) -> str | None:
    """The link that was given: as an argument, in a file, or in ``QMT_INVITE``; None if none was.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid` where the file cannot be read.
    """
    import os
    from pathlib import Path

    from .settings import INVITE_VARIABLE

    if argument:
        return argument
    if file:
        try:
            with Path(file).expanduser().open(encoding="utf-8") as handle:
                return handle.read(8192).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise OptionInvalid(
                f"The invite link cannot be read from {file} ({reason}).",
                next_step="Give the file that the host sent you.",
            ) from None
    return os.environ.get(INVITE_VARIABLE, "").strip() or None
