"""Invites that this user has joined with, so that the next command needs no link.

One JSON file beside the guest's identity (0600): the links are secrets. The newest stands last.
"""

from __future__ import annotations

import json
from pathlib import Path

from .. import settings
from ..errors import InviteError
from ..identity import link

_FILE = "joined.json"
_MOST = 50


def remember(directory: Path, joined: link.Link) -> None:
    """Keep a link; an earlier one of the same invite is replaced."""
    urls = [url for url in _read(directory) if _invite_id(url) != joined.invite.invite_id]
    urls.append(joined.url)
    data = json.dumps({"links": urls[-_MOST:]}, indent=1).encode()
    settings.write_private(directory / _FILE, data)


def newest(directory: Path) -> str | None:
    """The link joined last, or None."""
    urls = _read(directory)
    return urls[-1] if urls else None


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
