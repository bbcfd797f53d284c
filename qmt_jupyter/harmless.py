"""Text from elsewhere made harmless: for one line of ours, or for a terminal."""

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


def printable(text: str, limit: int = LONGEST_SENTENCE) -> str:
    """Make remote text safe to show: one line, no control or formatting characters, bounded."""
    kept = "".join(c if c.isprintable() else " " for c in text[: limit * 4])
    kept = " ".join(kept.split())
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def plain(text: str) -> str:
    """A model's text without what would steer a terminal; carriage returns just go."""
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r", ""))
