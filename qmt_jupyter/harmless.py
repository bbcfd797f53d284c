"""Text made harmless: for one line of ours, for a terminal, or for a file that is passed on."""

from __future__ import annotations

import re

LONGEST_SENTENCE = 400

# Control characters but newline and tab, separators that some take for a new line, what turns
# the direction of writing, and tags that nobody sees. Not the spaces and joiners that are no
# ASCII: French, Persian, Japanese and emoji are written with them.
_STEERING = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ud800-\udfff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)

# Where a peer is: an address with a port that no URL holds, and who it is.
_PLACE = re.compile(
    r"(?<![/\w.:@])(?:(\d{1,3}\.\d{1,3})\.\d{1,3}\.\d{1,3}|(\[[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:.]*(?:%\w+)?\])"
    r"(?=:\d{1,5}\b)"
)
_PEER_ID = re.compile(r"\b12D3KooW[1-9A-HJ-NP-Za-km-z]{36}(?=[1-9A-HJ-NP-Za-km-z]{8}\b)")


def printable(text: str, limit: int = LONGEST_SENTENCE) -> str:
    """Make remote text safe to show: one line, no control or formatting characters, bounded."""
    kept = "".join(c if c.isprintable() else " " for c in text[: limit * 4])
    kept = " ".join(kept.split())
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def plain(text: str) -> str:
    """A model's text without what would steer a terminal; carriage returns just go."""
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r", ""))


def shareable(text: str) -> str:
    """What a saved notebook may say: addresses of peers cut short, peer ids to their ends.

    An invite's holder finds its host by peer id and address; whoever is handed the file should not
    learn where that host, or a guest, is. The beginning tells which network it was, and the port
    what to open. URLs stay: a person wrote them, or they lead to this machine alone.
    """
    short = _PLACE.sub(lambda found: f"{found[1]}.…" if found[1] else f"{found[2]}…]", text)
    return _PEER_ID.sub("", short)
