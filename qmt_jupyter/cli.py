"""The ``qmt`` command. Thin over :mod:`qmt_jupyter.api`, with the magics' flags."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from . import __version__, flags, serve_command, words
from .chat_command import run_chat
from .errors import InviteError, OptionInvalid, QmtError
from .harmless import printable
from .terminal import Output, prepare_streams, progress_bar, shell_line, shown_if_possible

if TYPE_CHECKING:
    from .api import Host

_INTERRUPTED = 130


# Commands ------------------------------------------------------------------------------------


def run_host(arguments: argparse.Namespace, output: Output) -> int:
    """``qmt host``: share a model until interrupted, or say what could be shared."""
    from .api import detect, host
    from .facade import Limits
    from .offer import offer, offer_text

    if flags.names_nothing(arguments) and (found := detect()):
        given = [word for word in arguments.given if word != "--json"]
        offered = offer(found, shell_line("qmt", *given), bool(arguments.aliases))
        output.event("found", offer_text(offered), **offered)
        return 1
    with host(
        **flags.host_arguments(arguments),
        limits=Limits(**flags.limits(arguments)),
        progress=progress_bar("Getting the model"),
    ) as running:
        announce(running, output)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(0.2)
    # Afterwards, so that what was running has its end.
    usage = running.usage()
    from .tables import usage_table

    output.event("stopped", f"\nStopped hosting.\n{usage_table(usage)}", usage=usage)
    return 0


def announce(running: Host, output: Output) -> None:
    """Say that the host is ready and how to join."""
    invite, status = running.invite, running.status()
    if output.as_json:
        output.json(
            {
                "event": "ready",
                "peer_id": running.peer_id,
                "invite": invite.url,
                "models": running.models,
                "addresses": status["addresses"],
                "relay": status["relay"],
                "device": status["device"],
                "notices": list(running.notices),
            }
        )
        return
    print("\n".join(words.host_lines(running)))
    print(f"\n{shown_if_possible(invite.qr())}\n\n{invite.url}\n")
    print("Your guest runs:  qmt chat --join LINK 'a question'   or in a notebook:  %qmt_join")
    print("Ctrl-C stops hosting.", flush=True)


def run_invite(arguments: argparse.Namespace, output: Output) -> int:
    """``qmt invite``: sign another invite for the host of this ``QMT_HOME``."""
    from .facade import Limits
    from .home import sign_invite

    made = sign_invite(
        name=arguments.name,
        uses=arguments.uses,
        ttl=arguments.ttl,
        limits=Limits(**flags.limits(arguments)),
    )
    if output.as_json:
        output.json(
            {
                "event": "invite",
                "invite_id": made.invite_id,
                "invite": made.url,
                "name": made.name,
                "max_uses": made.max_uses,
                "expires_at": made.expires_at,
            }
        )
    else:
        print(f"{shown_if_possible(made.qr())}\n\n{made.url}", flush=True)
    return 0


def run_invites(_arguments: argparse.Namespace, output: Output) -> int:
    """``qmt invites``: the invites made here, without their guests and without their links."""
    from .home import read_usage
    from .tables import invites_table

    invites = read_usage()["invites"]
    if output.as_json:
        for invite in invites:
            output.json({key: value for key, value in invite.items() if key != "guests"})
    else:
        print(invites_table(invites))
    return 0


def run_revoke(arguments: argparse.Namespace, output: Output) -> int:
    """``qmt revoke``: stop an invite, or one guest, at once and for good."""
    from .home import revoke
    from .words import revoked_line

    done = revoke(arguments.which)
    output.event("revoked", revoked_line(done), **done)
    return 0


def run_usage(arguments: argparse.Namespace, output: Output) -> int:
    """``qmt usage``: who used what, from the records of the host of this ``QMT_HOME``."""
    from .home import read_usage, rows_of
    from .tables import rows_csv, usage_table

    usage = read_usage()
    if output.as_json:
        output.json(usage)
    elif arguments.csv:
        sys.stdout.write(rows_csv(rows_of(usage)))
        sys.stdout.flush()
    else:
        print(usage_table(usage) or "No invite has been made.")
    return 0


def run_inspect(arguments: argparse.Namespace, output: Output) -> int:
    """``qmt inspect``: read an invite offline."""
    from .identity import link
    from .identity.lifetime import describe

    given = flags.link_from(arguments.link, arguments.file)
    if given is None:
        raise OptionInvalid("There is no link to inspect.", next_step="Give it, or --file PATH.")
    facts: dict[str, Any] = {"valid": False, "reason": None}
    facts |= dict.fromkeys(
        ("version", "invite_id", "peer_id", "name", "expires_at", "max_uses", "can_invite", "role")
    )
    now = time.time()
    try:
        read = link.read(given).invite
        facts.update(
            version=read.version,
            invite_id=read.invite_id,
            peer_id=read.peer_id,
            name=read.name,
            expires_at=read.expires_at,
            max_uses=read.max_uses,
            can_invite=read.can_invite,
            role=read.role,
        )
        read.require_unexpired(now)
        facts["valid"] = True
    except InviteError as error:
        facts["reason"] = error.sentence
    if output.as_json:
        output.json(facts)
    else:
        if facts["peer_id"]:
            ends = facts["expires_at"]
            print(f"Invite to   {printable(facts['name'], 100)}")
            print(f"Host        {facts['peer_id']}")
            print(f"Invite id   {facts['invite_id']} (version {facts['version']})")
            print(f"Uses        {facts['max_uses'] or 'unlimited'}")
            print(f"Role        {facts['role']}{', may invite' if facts['can_invite'] else ''}")
            left = "never" if not ends else f"in {describe(ends - now)}" if ends > now else "over"
            print(f"Ends        {left}")
        print("Valid: signed by this host." if facts["valid"] else f"Not valid: {facts['reason']}")
    return 0 if facts["valid"] else 1


def run_join(arguments: argparse.Namespace, output: Output) -> int:
    """``qmt join``: be admitted, list the models, and remember the link for ``qmt chat``."""
    from .api import join
    from .home import remember
    from .tables import models_table

    url = flags.link_or_hub(arguments.link, arguments.file) or ask_for_link()
    with join(url, name=arguments.name, timeout=arguments.timeout) as mesh:
        # Of several services of a JupyterHub the first may not have admitted.
        models, status = mesh.models, min(mesh.status(), key=lambda each: not each["connected"])
    remember(url)
    output.event(
        "joined",
        f"Joined {status['mesh']}; its host can read your prompts.\n{models_table(models)}\n"
        "Ask with:  qmt chat 'a question'",
        mesh=status["mesh"],
        host=status["host"],
        path=status["path"],
        models=models,
        limits=status["limits"],
        left=status["left"],
    )
    return 0


def ask_for_link() -> str:
    """Ask a person at the terminal, without echo."""
    import getpass

    if not sys.stdin.isatty():
        raise OptionInvalid(
            "There is no invite link.",
            next_step="Give it as an argument, with --file PATH, or in QMT_INVITE.",
        )
    return getpass.getpass("Invite link: ")


def run_bootstrap(arguments: argparse.Namespace, output: Output) -> int:
    """``qmt bootstrap``: a node of the DHT for a lab or a class."""
    from .bootstrap_command import run

    return run(arguments.port, output)


def run_demo(arguments: argparse.Namespace, output: Output) -> int:
    """``qmt demo``: the main job on this machine, between two processes."""
    from .demo import run

    figures = run(arguments.model, None if output.as_json else print)
    output.event("demo", "\nThat was the whole of it: one link, no key, no server.", **figures)
    return 0


# The command line ------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    main_parser = flags.Parser("qmt", "Share a model with one link; use it with one link.")
    main_parser.add_argument("--version", action="version", version=f"qmt {__version__}")
    commands = main_parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, description=text, help=text)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="print one JSON object a line")
        return sub

    flags.add_host(command("host", run_host, "share a model until Ctrl-C"))
    flags.add_grant(command("invite", run_invite, "make another invite for the host here"))
    command("invites", run_invites, "list the invites made here")
    flags.add_which(command("revoke", run_revoke, "stop an invite or a guest at once"))
    usage = command("usage", run_usage, "show who used what")
    usage.add_argument("--csv", action="store_true", help="print one row a guest, as CSV")
    inspect = command("inspect", run_inspect, "read an invite without any network")
    inspect.add_argument("link", nargs="?", help="the invite link")
    inspect.add_argument("--file", metavar="PATH", help="read the invite link from a file")
    join = command("join", run_join, "join a mesh and remember it for qmt chat")
    join.add_argument(
        "link",
        nargs="?",
        help="the invite link (better: --file or QMT_INVITE), or hub for the service of the "
        "JupyterHub that this server belongs to (the default there)",
    )
    flags.add_link_sources(join)
    chat = command("chat", run_chat, "ask one question and stream the answer")
    chat.add_argument("prompt", nargs="*", help="the question (default: standard input)")
    flags.add_join(chat)
    flags.add_chat(chat)
    serving = command("serve", serve_command.run, "an OpenAI endpoint here for your other tools")
    flags.add_join(serving)
    flags.add_serve(serving)
    bootstrap = command("bootstrap", run_bootstrap, "run a node that hosts are found through")
    bootstrap.add_argument("--port", type=int, metavar="PORT", help="UDP port (default: 47471)")
    demo = command("demo", run_demo, "host and guest on this machine, with a small model")
    demo.add_argument("--model", default=flags.DEFAULT_MODEL, metavar="MODEL", help="what to share")
    return main_parser


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 for an error, 130 for an interrupt."""
    given = sys.argv[1:] if argv is None else argv
    output = Output("--json" in given)
    prepare_streams()
    in_main = threading.current_thread() is threading.main_thread()
    ending = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    for each in ending if in_main else ():
        # nohup asks for SIGHUP to be ignored; that is respected.
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _terminate)
    try:
        arguments = parser().parse_args(given, argparse.Namespace(given=given))
        status: int = arguments.run(arguments, output)
    except QmtError as error:
        output.error(error)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF):
            raise
        if error.errno != errno.EPIPE:
            print(f"qmt: The output cannot be written ({error.strerror}).", file=sys.stderr)
        # Whoever reads this has seen enough; the interpreter must not complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        # What follows is clean-up that bounds itself; a second signal ends it at once.
        for each in ending if in_main else ():
            if signal.getsignal(each) is _terminate:
                signal.signal(each, signal.SIG_DFL)
    return status


if __name__ == "__main__":
    sys.exit(main())
