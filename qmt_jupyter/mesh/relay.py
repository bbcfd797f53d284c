"""Which relay servers an endpoint may use: none, one of one's own, or the transport's public ones.

A relay passes on packets that it cannot read, between peers that no direct way connects. Nothing
is ever contacted that a host did not choose, or the link that a guest was given did not name.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import OptionInvalid
from ..identity.link import relay_url


@dataclass(frozen=True)
class Relays:
    """The public relays, or the one at ``url``, or (the default) none."""

    url: str | None = None
    public: bool = False

    @property
    def any(self) -> bool:
        """Whether there is one at all."""
        return self.public or self.url is not None


NO_RELAY = Relays()
PUBLIC_RELAYS = Relays(public=True)


def relay_option(text: str) -> Relays:
    """What ``--relay`` says: ``none``, ``public``, or the URL of a relay.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid` for anything else.
    """
    if text == "none":
        return NO_RELAY
    if text == "public":
        return PUBLIC_RELAYS
    url = relay_url(text)
    if url is None:
        raise OptionInvalid(
            "The relay cannot be understood.",
            next_step="Give none, public, or a URL without a path, like https://relay.example:443.",
        )
    return Relays(url)
