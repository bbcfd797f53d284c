"""Keeping a host's record in the DHT: published, renewed, and replaced when the host moves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ..identity import keys, link, whereabouts
from .node import DhtNode

LOOK_EVERY = 2.0
_FIRST_LOOKS = 0.1  # while the record has not been published, somebody may be waiting for it
RENEW_AFTER = 600.0
_AGAIN_AFTER = 10.0
_GROWN_AFTER = 30.0

log = logging.getLogger(__name__)


class Announcer:
    """Publishes where a host is. :meth:`run` does the work, for as long as it runs.

    ``where`` gives the host's addresses and relay now; ``lost`` is called when there were nodes
    and none of them took the record.
    """

    def __init__(
        self,
        node: DhtNode,
        identity: keys.Identity,
        where: Callable[[], link.Hints],
        *,
        lost: Callable[[], None] = lambda: None,
        look_every: float = LOOK_EVERY,
    ) -> None:
        self._node = node
        self._identity = identity
        self._where = where
        self._lost = lost
        self._look_every = look_every
        self._sequence = 0
        self._published: link.Hints | None = None
        self._known_then = 0
        self._last_try = 0.0
        self.keepers = 0

    @property
    def state(self) -> str:
        """``quiet`` while no node is known, else how many nodes keep the record."""
        if self.keepers:
            return f"published to {self.keepers} node{'' if self.keepers == 1 else 's'}"
        return "no node has taken the record yet" if self._node.contacts else "quiet"

    async def run(self) -> None:
        """Look every moment whether there is something to publish, until cancelled."""
        while True:
            if self._node.contacts and self._is_due(time.monotonic()):
                await self._publish(self._where())
            first = self._published is None
            await asyncio.sleep(min(_FIRST_LOOKS, self._look_every) if first else self._look_every)

    def _is_due(self, now: float) -> bool:
        since = now - self._last_try
        if self._published != self._where():
            return self._published is None or not self.keepers or since > self._look_every / 2
        if not self.keepers:
            return since > _AGAIN_AFTER
        # In a network that has grown, others are nearer to the record than those that keep it.
        grown = len(self._node.contacts) > 2 * self._known_then and since > _GROWN_AFTER
        return grown or since > RENEW_AFTER

    async def _publish(self, where: link.Hints) -> None:
        for _ in range(2):
            # By the clock, so that a restarted host goes on above what it published before.
            self._sequence = max(self._sequence + 1, int(time.time() * 1000))
            record = whereabouts.create(
                self._identity,
                sequence=self._sequence,
                now=time.time(),
                addresses=tuple(a for a in where.addresses if link.socket_address(a) == a),
                relay=link.relay_url(where.relay or ""),
            )
            self._last_try = time.monotonic()
            published = await self._node.publish(record)
            newest = published.newest
            if newest is None or newest.sequence < self._sequence or newest.data == record.data:
                break
            # The clock was ahead when it published before: from here on, above that.
            self._sequence = min(newest.sequence, 2**64 - 2)
        self.keepers, self._known_then = published.nodes, len(self._node.contacts)
        self._published = where
        log.info("the host's record is kept by %d nodes", self.keepers)
        if not self.keepers:
            self._lost()
