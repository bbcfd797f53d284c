"""``qmt bootstrap``: a node of the DHT for a lab or a class, that anyone can leave running."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from . import runtime
from .errors import OptionInvalid
from .mesh.bootstrap import DEFAULT_PORT, BootstrapNode
from .settings import Settings
from .terminal import Output

_LOOK_EVERY = 1.0
_SAID_AT_MOST_EVERY = 60.0


def run(port: int | None, output: Output) -> int:
    """Run a node until interrupted, and say what to hand out."""
    wanted = DEFAULT_PORT if port is None else port
    if not 0 <= wanted < 65536:
        raise OptionInvalid(f"{wanted} is not a port; 1 to 65535 are.")
    node, forget = runtime.call(_start, wanted)
    try:
        _announce(node, output)
        with contextlib.suppress(KeyboardInterrupt):
            _report(node, output)
    finally:
        runtime.call(node.close)
        forget()
    output.event("stopped", "\nThe bootstrap node has stopped.")
    return 0


async def _start(port: int) -> tuple[BootstrapNode, Callable[[], None]]:
    node = await BootstrapNode.start(Settings.from_environment(), port=port)
    return node, runtime.at_shutdown(node.close)


def _announce(node: BootstrapNode, output: Output) -> None:
    setting = f"QMT_BOOTSTRAP={','.join(node.addresses[:2])}"
    if output.as_json:
        output.json(
            {
                "event": "ready",
                "port": node.port,
                "addresses": list(node.addresses),
                "setting": setting,
            }
        )
        return
    print(f"A bootstrap node listens at UDP port {node.port}. Hosts and guests use it with:\n")
    print(f"    {setting}\n")
    print("Behind a router give its address or name instead, and forward the port.")
    print("On one local network nobody needs the line. Ctrl-C stops the node.", flush=True)


def _report(node: BootstrapNode, output: Output) -> None:
    """Say now and then, when it has changed, how many use the node."""
    said: dict[str, int] = {"nodes": 0, "records": 0}
    last = -_SAID_AT_MOST_EVERY
    while True:
        time.sleep(_LOOK_EVERY)
        now = time.monotonic()
        status = runtime.read(node.status)
        if status != said and now - last > _SAID_AT_MOST_EVERY:
            said, last = status, now
            output.event(
                "status", f"{said['nodes']} nodes known, {said['records']} records kept", **said
            )
