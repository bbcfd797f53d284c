"""What the JupyterHub tells this server by its environment: its services, and who it is to them."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from ...errors import HubNotFound
from ...settings import HUB_TOKEN_VARIABLE, HUB_VARIABLE

_MOST_SERVICES = 16
_LONGEST_URL = 500
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


def service_urls() -> tuple[str, ...]:
    """The base URLs of the services, each ending in a slash, at most 16.

    Raises :class:`~qmt_jupyter.errors.HubNotFound` where there is none, or where what stands
    there is no address.
    """
    given = [each.strip() for each in os.environ.get(HUB_VARIABLE, "").split(",")]
    found = tuple(dict.fromkeys(_base(each) for each in given if each))
    if not found:
        raise HubNotFound(
            f"No JupyterHub has told this server of a service: {HUB_VARIABLE} is not set."
        )
    token()
    return found[:_MOST_SERVICES]


def token() -> str:
    """This server's own token at its JupyterHub. Keep it nowhere: ask again at each use.

    Raises :class:`~qmt_jupyter.errors.HubNotFound` where there is none.
    """
    found = os.environ.get(HUB_TOKEN_VARIABLE, "").strip()
    if not _TOKEN.fullmatch(found):
        raise HubNotFound(
            f"This server has no token of a JupyterHub: {HUB_TOKEN_VARIABLE} holds none."
        )
    return found


def _base(text: str) -> str:
    """A base URL without user, query and fragment: nothing secret can stand in it."""
    try:
        parts = urlsplit(text)
        usable = (
            len(text) <= _LONGEST_URL
            and text.isascii()
            and text.isprintable()
            and " " not in text
            and parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not ({"@", "\\"} & {*text} or parts.query or parts.fragment)
        )
    except ValueError:
        usable = False
    if not usable:
        raise HubNotFound(f"{HUB_VARIABLE} holds something that is no address of a service.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"
