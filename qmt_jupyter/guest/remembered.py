"""Invites that this user has joined with, so that the next command needs no link.

One JSON file beside the guest's identity (0600): the links are secrets. The newest stands last.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from .. import settings
from ..errors import InviteError
from ..harmless import printable
from ..identity import link
from .routing import of_host

_FILE = "joined.json"
_MOST = 50


def remember(directory: Path, joined: link.Link) -> None:
    """Keep a link; an earlier one of the same invite is replaced."""
    urls = [url for url in _read(directory) if _invite_id(url) != joined.invite.invite_id]
    urls.append(joined.url)
    data = json.dumps({"links": urls[-_MOST:]}, indent=1).encode()
    settings.write_private(directory / _FILE, data)


def newest(directory: Path, host: str | None = None) -> str | None:
    """The link joined last, or None; the last one to ``host``, where that is given.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid` where ``host`` is none of them, or more than
    one.
    """
    urls = _read(directory)
    if host is None:
        return urls[-1] if urls else None
    by_host = {each.host_id: each for each in map(_remembered, urls) if each is not None}
    return of_host(list(by_host.values()), host).url


@dataclass(frozen=True)
class _Remembered:
    host_id: str
    mesh_name: str
    url: str = field(repr=False)


def _remembered(url: str) -> _Remembered | None:
    try:
        invite = link.read(url).invite
    except InviteError:
        return None
    return _Remembered(invite.peer_id, printable(invite.name, 100), url)


def _read(directory: Path) -> list[str]:
    try:
        urls = json.loads((directory / _FILE).read_bytes())["links"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [url for url in urls if isinstance(url, str)] if isinstance(urls, list) else []


def _invite_id(url: str) -> str | None:
    try:
        return link.read(url).invite.invite_id
    except InviteError:
        return None
