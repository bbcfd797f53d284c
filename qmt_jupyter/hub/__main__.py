"""``python -m qmt_jupyter.hub``: the service itself, until it is told to stop."""

from __future__ import annotations

import importlib.util
import os
import sys

NEEDED = ("jupyterhub", "prometheus_client")


def main(arguments: list[str] | None = None) -> int:
    """Run the service. Returns the exit status: 0 when it was told to stop, 1 for an error."""
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        print(
            "The service of a JupyterHub needs more than this package: "
            "pip install 'qmt-jupyter[hub]'",
            file=sys.stderr,
        )
        return 1
    from ..errors import QmtError
    from ..terminal import prepare_streams
    from .options import read_options
    from .running import run

    prepare_streams()
    try:
        return run(read_options(sys.argv[1:] if arguments is None else arguments, os.environ))
    except QmtError as error:
        print(f"qmt_jupyter.hub: {error}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
