"""The cells that hosts and guests run in these tests."""

from __future__ import annotations

LOAD = "%load_ext qmt_jupyter"


def host_cell(*, delay: float = 0.0, uses: int = 3) -> str:
    """Starts a host named ``Team GPU`` whose model repeats the prompt up to ``--max-tokens``.

    ``echo`` is the model, with ``delay`` seconds before each token; ``%qmt_host`` then shows it.
    """
    return f"""\
import qmt_jupyter as qmt
from qmt_jupyter.notebook.state import STATE
from qmt_jupyter.providers.echo import Echo

echo = Echo(delay={delay}, repeat=True)
STATE.started = qmt.host(echo, name="Team GPU", uses={uses})"""
