"""Who is known in the DHT, from which source, and whether they are still there.

Nodes come from the configuration, from earlier sessions, and from whoever names some while this
runs (a link, the local network, a host). As long as none is known, nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import socket
from collections.abc import Iterable
from pathlib import Path

from .. import settings
from ..errors import HomeNotWritable, OptionInvalid
from ..identity.link import socket_address
from .contact import Contact, usable
from .node import DhtNode

FILE = "nodes.json"
MAX_REMEMBERED = 64
MAX_NAMED = 64
MAX_CONFIGURED = 16

LOOK_EVERY = 15.0
_FRESH = 60.0  # seconds for which a node that was heard of is taken to be there
_TRIED_AGAIN_AFTER = 15.0
_AT_ONCE = 16
_LOOK_AROUND_EVERY = 600.0
_SAVE_EVERY = 300.0
_RESOLVE_DEADLINE = 3.0
_LONGEST_FILE = 64 * 1024

log = logging.getLogger(__name__)


def contact_at(text: str) -> Contact | None:
    """The contact of an ``IP:PORT`` text, or None if no node could be there."""
    read = socket_address(text)
    if read is None:
        return None
    host, _, port = read.rpartition(":")
    return usable(host.strip("[]"), int(port))


def configured(texts: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """``HOST:PORT`` texts (QMT_BOOTSTRAP) as pairs; names are not looked up here.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid`.
    """
    read = []
    for text in texts:
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0
        if not 0 < number < 65536 or not 0 < len(host) < 254 or not host.isprintable():
            raise OptionInvalid(
                f"{text!r} is not the address of a bootstrap node.",
                next_step="Write QMT_BOOTSTRAP as HOST:PORT, several separated by commas.",
            )
        read.append((host, number))
    if len(read) > MAX_CONFIGURED:
        raise OptionInvalid(
            f"QMT_BOOTSTRAP names {len(read)} nodes; {MAX_CONFIGURED} are possible.",
            next_step="Name a few that always run.",
        )
    return tuple(read)


class Remembered:
    """Nodes of earlier sessions: a JSON file (0600) of at most :data:`MAX_REMEMBERED`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Contact]:
        """What the file holds; nothing if there is none or it is damaged."""
        try:
            with self._path.open("rb") as file:
                data = file.read(_LONGEST_FILE + 1)
            texts = json.loads(data)["nodes"] if len(data) <= _LONGEST_FILE else []
            found = [contact_at(each) for each in texts if isinstance(each, str)]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return []
        return [each for each in found if each][:MAX_REMEMBERED]

    def note(self, contacts: Iterable[Contact]) -> None:
        """Remember these first, then those already remembered. A full disk does not matter."""
        known = list(dict.fromkeys([*contacts, *self.read()]))[:MAX_REMEMBERED]
        text = json.dumps({"version": 1, "nodes": [str(each) for each in known]}, indent=1)
        with contextlib.suppress(HomeNotWritable):
            settings.write_private(self._path, text.encode())


class Table:
    """Keeps a node in touch: enters by whoever is known, notices who is gone, remembers.

    :meth:`keep` does the work, for as long as it runs.
    """

    def __init__(
        self,
        node: DhtNode,
        *,
        bootstrap: Iterable[str] = (),
        remember: Path | None = None,
        look_every: float = LOOK_EVERY,
    ) -> None:
        self._node = node
        self._configured = configured(bootstrap)
        self._remembered = Remembered(remember) if remember is not None else None
        self._named: dict[Contact, None] = {}
        self._untried: list[Contact] = []
        self.lasting: frozenset[Contact] = frozenset()
        self._look_every = look_every
        self._wake = asyncio.Event()
        self.entered = asyncio.Event()

    # Who is named ------------------------------------------------------------------------------

    def name(self, contacts: Iterable[Contact]) -> None:
        """Somebody says that there are nodes; they are tried soon, and again when others fail."""
        for contact in contacts:
            if contact not in self._named:
                self._named[contact] = None
                self._untried.append(contact)
        while len(self._named) > MAX_NAMED:
            del self._named[next(iter(self._named))]
        self._untried = [each for each in self._untried if each in self._named]
        if self._untried:
            self._wake.set()

    def lost(self) -> None:
        """Somebody has noticed that no node answers: look after them now."""
        self._wake.set()

    @property
    def some_are_known(self) -> bool:
        """Whether there is anybody to ask at all."""
        return bool(
            self._node.contacts
            or self._named
            or self._configured
            or (self._remembered and self._remembered.read())
        )

    # Keeping in touch --------------------------------------------------------------------------

    async def keep(self) -> None:
        """Enter, stay, and enter again after a loss, until cancelled."""
        loop = asyncio.get_running_loop()
        saved = looked = loop.time()
        try:
            while True:
                self._wake.clear()
                if await self._stay():
                    self.entered.set()
                    if loop.time() - looked > _LOOK_AROUND_EVERY:
                        looked = loop.time()
                        await self._node.look_around()
                    if loop.time() - saved > _SAVE_EVERY:
                        saved = loop.time()
                        self._save()
                # Not all at the same beat, or they would all ask at the same time.
                await self._rest(self._look_every * random.uniform(0.8, 1.2))  # noqa: S311
        finally:
            self._save()

    async def _rest(self, seconds: float) -> None:
        # Not wait_for: a cancellation that meets the waking is lost in it.
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait([waking], timeout=seconds)
        finally:
            waking.cancel()

    async def _stay(self) -> bool:
        """One look after the others; whether there are any now."""
        untried, self._untried = self._untried, []
        if self._node.contacts:
            if untried and await self._node.check(untried[:MAX_NAMED]):
                await self._node.look_around()
            if await self._node.check_longest_silent(_FRESH) is not False:
                return True
            # It may be gone, or all of them may: the machine has moved, or slept.
            if await self._node.check_longest_silent(0.0, _AT_ONCE):
                return True
        return await self._enter()

    async def _enter(self) -> bool:
        """Try all that are known, some at a time, until one has answered."""
        known = [*self._node.contacts, *self._named, *await self._resolved()]
        if self._remembered is not None:
            known += self._remembered.read()
        unique = list(dict.fromkeys(known))
        for at in range(0, len(unique), _AT_ONCE):
            if await self._node.enter(unique[at : at + _AT_ONCE]):
                return True
        return False

    async def _resolved(self) -> list[Contact]:
        """The configured nodes; their names are looked up each time, since they may have moved."""
        found = await asyncio.gather(*(_resolve(*each) for each in self._configured))
        resolved = [contact for contacts in found for contact in contacts]
        # Those that somebody keeps running, as against whoever is just passing by.
        self.lasting = frozenset(resolved)
        return resolved

    def _save(self) -> None:
        if self._remembered is not None and self._node.contacts:
            self._remembered.note(self._node.contacts)


async def _resolve(host: str, port: int) -> list[Contact]:
    """The contacts behind a name; an address needs no look-up."""
    literal = usable(host, port)
    if literal is not None:
        return [literal]
    looking = asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    try:
        infos = await asyncio.wait_for(looking, _RESOLVE_DEADLINE)
    except (OSError, UnicodeError, asyncio.TimeoutError) as error:
        log.info("the bootstrap node %s is not found: %s", host, error)
        return []
    found = [usable(info[4][0], port) for info in infos]
    return [each for each in dict.fromkeys(found) if each is not None][:4]
