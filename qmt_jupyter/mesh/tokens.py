"""Tokens that show that somebody gets what is sent to its address; without one nobody may store.

A sender's address is easily forged in UDP, but who forges it does not see the answer. Nothing is
remembered about anybody: a token is a keyed hash of the address, and the key changes.
"""

from __future__ import annotations

import hashlib
import secrets

SIZE = 8
LASTS = 600.0


class Tokens:
    """Makes and checks tokens; one is good for :data:`LASTS` to twice as many seconds."""

    def __init__(self, now: float) -> None:
        self._keys = (secrets.token_bytes(16), secrets.token_bytes(16))
        self._since = now

    def of(self, ip: str, now: float) -> bytes:
        """The token for whoever is at ``ip``; ``now`` in seconds of any steady clock."""
        return self._both(ip, now)[0]

    def is_of(self, token: bytes, ip: str, now: float) -> bool:
        """Whether ``token`` was given to ``ip`` not long ago."""
        return token in self._both(ip, now)

    def _both(self, ip: str, now: float) -> tuple[bytes, bytes]:
        if now - self._since > LASTS:
            forgotten = now - self._since > 2 * LASTS
            former = secrets.token_bytes(16) if forgotten else self._keys[0]
            self._keys, self._since = (secrets.token_bytes(16), former), now
        first, second = (
            hashlib.blake2b(ip.encode(), key=key, digest_size=SIZE).digest() for key in self._keys
        )
        return first, second
