"""Where hosts were when this user last spoke to them, so that they are looked for there first.

One JSON file beside the guest's identity (0600), peer id to ``IP:PORT``. Only places of direct
connections stand in it, whose key was proven; what is read is a place to try and no more.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from .. import settings
from ..errors import HomeNotWritable
from ..identity.link import socket_address

_FILE = "places.json"
_MOST_HOSTS = 50
_MOST_PLACES = 3


class Places:
    """The places of one user's hosts, kept in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE

    def of(self, host_id: str) -> tuple[str, ...]:
        """Where the host was, the newest place first; none if it is not known."""
        return tuple(self._read().get(host_id, ()))

    def note(self, host_id: str, place: str) -> None:
        """Remember that the host answered at ``place``. A disk that is full does not matter."""
        address = socket_address(place)
        known = self._read()
        former = known.pop(host_id, [])
        if address is None or (former and former[0] == address):
            return
        known[host_id] = [address, *(each for each in former if each != address)][:_MOST_PLACES]
        newest = dict(list(known.items())[-_MOST_HOSTS:])
        with contextlib.suppress(HomeNotWritable):
            settings.write_private(self._path, json.dumps({"places": newest}, indent=1).encode())

    def _read(self) -> dict[str, list[str]]:
        try:
            recorded = json.loads(self._path.read_bytes())["places"].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}
        read: dict[str, list[str]] = {}
        for host_id, places in recorded:
            if isinstance(places, list):
                found = [socket_address(each) for each in places if isinstance(each, str)]
                read[host_id] = [each for each in found if each][:_MOST_PLACES]
        return read
