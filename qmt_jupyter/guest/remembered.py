"""Invites that this user has joined with, so that the next command needs no link.

One JSON file beside the guest's identity (0600): the links are secrets. The newest stands last.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from .. import settings
from ..errors import InviteError, OptionInvalid
from ..harmless import printable
from ..identity import link
from .routing import of_host

_FILE = "joined.json"
_MOST = 50


def remember(directory: Path, url: str) -> None:
    """Keep a link, or the word ``hub``; an earlier one of the same invite is replaced.

    Raises :class:`~qmt_jupyter.errors.InviteError` where it is neither.
    """
    joined = url if url == settings.HUB else link.read(url).url
    urls = [each for each in _read(directory) if _meant(each) != _meant(joined)]
    urls.append(joined)
    data = json.dumps({"links": urls[-_MOST:]}, indent=1).encode()
    settings.write_private(directory / _FILE, data)


def newest(directory: Path, host: str | None = None) -> str | None:
    """The link joined last, or None; the last one to ``host``, where that is given.

    ``hub`` where that was joined last, or may lead to the host. Raises
    :class:`~qmt_jupyter.errors.OptionInvalid` where ``host`` is none of them, or more than one.
    """
    urls = _read(directory)
    if host is None:
        return urls[-1] if urls else None
    by_host = {each.host_id: each for each in map(_remembered, urls) if each is not None}
    try:
        return of_host(list(by_host.values()), host).url
    except OptionInvalid:
        # Which hosts the services of a JupyterHub have, they say when they are asked.
        if settings.HUB in urls:
            return settings.HUB
        raise


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


def _meant(url: str) -> str | None:
    """The id of a link's invite, or the word that stands for one."""
    if url == settings.HUB:
        return url
    try:
        return link.read(url).invite.invite_id
    except InviteError:
        return None
