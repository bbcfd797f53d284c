"""Messages to a widget reach the subshell that the front end has sent them to.

ipykernel 7.4 sends what a front end says on a comm to the shell in which the kernel last said
something on it. A widget that was made by a cell, and one that is fed by a thread, would hear
nothing until that cell ends. The front end knows better: it names the subshell in each message.
"""

from __future__ import annotations

from typing import Any


def answer_in_subshells(widget: Any) -> None:
    """Have messages to ``widget`` go where they are addressed, while a cell runs too."""
    comm = widget.comm
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _data, addressed: addressed
