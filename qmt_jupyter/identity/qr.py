"""QR codes of invite links, for terminals and as SVG.

Both have the quiet zone of four modules that scanners need, and both bring their own colours:
dark on light, whatever the theme of the terminal or the page.
"""

from __future__ import annotations

import qrcode
from qrcode.constants import ERROR_CORRECT_L

_QUIET_ZONE = 4
_BLACK_ON_WHITE = "\x1b[38;5;16;48;5;231m"
_RESET = "\x1b[0m"


def matrix(text: str) -> list[list[bool]]:
    """The code's modules, row by row, quiet zone included; True is dark."""
    code = qrcode.QRCode(error_correction=ERROR_CORRECT_L, border=_QUIET_ZONE)
    code.add_data(text)
    code.make(fit=True)
    return [[bool(module) for module in row] for row in code.get_matrix()]


def terminal(text: str) -> str:
    """Lines for a terminal: two modules a character, dark on light by explicit colours."""
    rows = matrix(text)
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        cells = "".join(
            "█" if top and bottom else "▀" if top else "▄" if bottom else " "
            for top, bottom in zip(upper, lower, strict=True)
        )
        lines.append(f"{_BLACK_ON_WHITE}{cells}{_RESET}")
    return "\n".join(lines)


def svg(text: str) -> str:
    """A self-contained SVG with a white ground, sized by its viewBox."""
    rows = matrix(text)
    size = len(rows)
    runs = []
    for y, row in enumerate(rows):
        x = 0
        while x < size:
            if not row[x]:
                x += 1
                continue
            start = x
            while x < size and row[x]:
                x += 1
            runs.append(f"M{start} {y}h{x - start}v1h-{x - start}z")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" role="img" '
        f'aria-label="QR code of the invite link" shape-rendering="crispEdges">'
        f'<rect width="{size}" height="{size}" fill="#fff"/>'
        f'<path d="{"".join(runs)}" fill="#000"/></svg>'
    )
