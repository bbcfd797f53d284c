"""What the service was told: by flags, and by the environment that a JupyterHub sets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from .. import flags
from ..errors import OptionInvalid
from ..harmless import printable
from ..settings import user_path
from .person import SERVICE_NAME
from .policy import Policy, read_policy

RECHECK_EVERY = 20.0
DEFAULT_NAME = "qmt"
DEFAULT_MODEL = flags.DEFAULT_MODEL
_LARGEST_CONFIG = 4 * 1024 * 1024
_LONGEST_RECHECK = 50.0
_MOST_PEERS = 64

_MEANINGS = {
    "JUPYTERHUB_API_TOKEN": "the token that the Hub knows this service by, its api_token",
    "JUPYTERHUB_API_URL": "the Hub's API as seen from here, such as http://10.0.0.1:8081/hub/api",
    "JUPYTERHUB_SERVICE_URL": "where to listen for the Hub's proxy, such as http://0.0.0.0:10200",
}


@dataclass(frozen=True)
class Options:
    """One service's own place and its Hub's.

    ``name`` is the service's on the Hub, ``prefix`` where the Hub's proxy sends it from
    (``/services/qmt/``), ``address`` and ``port`` where it listens for that proxy (0: a free
    port). ``hub_prefix`` is the Hub's path on the proxy (``/hub/``), and ``hub_host`` its origin
    where services have another; ``callback`` is where it sends a browser back to, and has to be
    what it says itself. ``recheck``: after at most about so many seconds a right that is
    gone on the Hub is gone here. ``peers``: base URLs of other services of this Hub. ``hosting``:
    arguments of :func:`qmt_jupyter.aio.host`.
    """

    name: str
    prefix: str
    api_url: str
    api_token: str = field(repr=False)
    address: str = "127.0.0.1"
    port: int = 10200
    client_id: str = ""
    hub_prefix: str = "/hub/"
    hub_host: str = ""
    callback: str = ""
    config: Path | None = None
    recheck: float = RECHECK_EVERY
    peers: tuple[str, ...] = ()
    hosting: dict[str, Any] = field(default_factory=dict)


def parser() -> flags.Parser:
    """The flags of ``python -m qmt_jupyter.hub``."""
    made = flags.Parser(
        "python -m qmt_jupyter.hub",
        "Share models with the users of a JupyterHub, as a service of that Hub.",
        epilog="The Hub sets JUPYTERHUB_API_TOKEN, JUPYTERHUB_API_URL and JUPYTERHUB_SERVICE_URL\n"
        "for a service that it manages; for an external one set them by hand.",
    )
    flags.add_models(made, otherwise=DEFAULT_MODEL)
    made.add_argument(
        "--name",
        metavar="NAME",
        help="what guests see the mesh called (default: the service's name on the Hub)",
    )
    made.add_argument(
        "--config",
        metavar="FILE",
        help="who may take how much, as TOML (default: everybody the same, with sane limits)",
    )
    made.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="URL",
        help="another service of this Hub, such as http://10.0.0.3:10200/services/qmt-b/; "
        "repeat it for more",
    )
    made.add_argument(
        "--recheck",
        type=float,
        default=RECHECK_EVERY,
        metavar="SECONDS",
        help="how often the Hub is asked whether a user who is connected still may "
        f"(default {RECHECK_EVERY:g})",
    )
    flags.add_engine(made)
    return made


def read_options(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """What was given. Raises :class:`~qmt_jupyter.errors.OptionInvalid`, without the token."""
    given = parser().parse_args(arguments)
    missing = [name for name in _MEANINGS if not environment.get(name, "").strip()]
    if missing:
        raise OptionInvalid(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set.",
            next_step="Have the JupyterHub start the service, or set by hand: "
            + "; ".join(f"{name}, {_MEANINGS[name]}" for name in missing)
            + ".",
        )
    name = environment.get("JUPYTERHUB_SERVICE_NAME", "").strip() or DEFAULT_NAME
    if not SERVICE_NAME.fullmatch(name):
        raise OptionInvalid(
            f"JUPYTERHUB_SERVICE_NAME is {printable(name, 60)!r}, which is no service's name.",
            next_step="Use small letters, digits, dots and dashes.",
        )
    base = _prefix(environment, "JUPYTERHUB_BASE_URL", "/")
    listening = _url(environment["JUPYTERHUB_SERVICE_URL"], "JUPYTERHUB_SERVICE_URL")
    if listening.scheme != "http":
        raise OptionInvalid(
            "JUPYTERHUB_SERVICE_URL begins with https://, and the service speaks http.",
            next_step="Leave TLS to the Hub's proxy: http://ADDRESS:PORT.",
        )
    if not 0 < given.recheck <= _LONGEST_RECHECK:
        raise OptionInvalid(
            f"{given.recheck:g} is no time for --recheck.",
            next_step=f"Give up to {_LONGEST_RECHECK:g} seconds.",
        )
    api = _url(environment["JUPYTERHUB_API_URL"], "JUPYTERHUB_API_URL")
    token = environment["JUPYTERHUB_API_TOKEN"].strip()
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise OptionInvalid("JUPYTERHUB_API_TOKEN is set to what no token is.")
    hosting = flags.engine_arguments(given)
    if flags.names_nothing(given):
        hosting["model"] = [DEFAULT_MODEL]
    return Options(
        name=name,
        prefix=_prefix(environment, "JUPYTERHUB_SERVICE_PREFIX", f"{base}services/{name}/"),
        api_url=api.geturl().rstrip("/"),
        api_token=token,
        address=listening.hostname or "127.0.0.1",
        # A URL without a port means 80, as everywhere.
        port=80 if listening.port is None else listening.port,
        client_id=environment.get("JUPYTERHUB_CLIENT_ID", "").strip() or f"service-{name}",
        hub_prefix=f"{base}hub/",
        hub_host=environment.get("JUPYTERHUB_HOST", "").strip(),
        callback=environment.get("JUPYTERHUB_OAUTH_CALLBACK_URL", "").strip(),
        config=user_path(given.config) if given.config else None,
        recheck=given.recheck,
        peers=_peers(given.peer),
        # Nobody sees the link of the first invite, which every host has.
        hosting={**hosting, "name": given.name or name, "uses": 1, "ttl": "1s"},
    )


def read_config(path: Path | None) -> Policy:
    """The policy in a file; where there is none, the default one.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid`, with the line.
    """
    if path is None:
        return Policy()
    called = printable(str(path), 120)
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_CONFIG + 1)
    except OSError as error:
        raise OptionInvalid(
            f"{called} cannot be read ({error.strerror or error}).",
            next_step="Give --config a TOML file that the service may read.",
        ) from None
    if len(data) > _LARGEST_CONFIG:
        raise OptionInvalid(f"{called} is larger than {_LARGEST_CONFIG >> 20} MB.")
    try:
        # Windows' editors begin a file with a mark.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OptionInvalid(
            f"{called}, line {line}: this is not text in UTF-8.",
            next_step="Save the file as UTF-8.",
        ) from None
    return read_policy(text, called)


def _url(text: str, called: str) -> SplitResult:
    cleaned = text.strip()
    try:
        split = urlsplit(cleaned)
        port = split.port
    except ValueError:
        split, port = SplitResult("", "", "", "", ""), None
    plain = cleaned.isascii() and cleaned.isprintable() and " " not in cleaned
    if (
        not plain
        or split.scheme not in ("http", "https")
        or not split.hostname
        or (port is not None and not 0 <= port < 65536)
        or split.query
        or split.fragment
        or "@" in split.netloc
    ):
        raise OptionInvalid(
            f"{called} is no address of the form http://HOST:PORT/PATH.",
            next_step="Correct it and start again.",
        )
    return split


def _prefix(environment: Mapping[str, str], variable: str, default: str) -> str:
    given = environment.get(variable, "").strip() or default
    if not re.fullmatch(r"/[\x21-\x7e]*", given) or "//" in given or "?" in given:
        raise OptionInvalid(f"{variable} is no path.", next_step=f"Write it like {default}.")
    return given if given.endswith("/") else f"{given}/"


def _peers(given: Sequence[str]) -> tuple[str, ...]:
    if len(given) > _MOST_PEERS:
        raise OptionInvalid(f"More than {_MOST_PEERS} peers cannot be asked.")
    urls = [_url(each, "A --peer").geturl() for each in given]
    return tuple(dict.fromkeys(url if url.endswith("/") else f"{url}/" for url in urls))
