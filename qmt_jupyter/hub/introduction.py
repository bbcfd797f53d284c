"""Asks the Hub once who the service itself is: a slip in its environment would look like a 404."""

from __future__ import annotations

import asyncio
import logging

from ..errors import HubNotFound, HubRefused
from ..harmless import printable
from .options import Options
from .rights import Rights

AGAIN_AFTER = 5.0
"""Seconds between two tries, while the Hub gives no answer; it may be the one that starts us."""

log = logging.getLogger(__name__)


async def introduce(rights: Rights, options: Options, *, every: float = AGAIN_AFTER) -> None:
    """Say in the log, once the Hub answers, what does not fit between it and the service."""
    while True:
        try:
            known = await rights.ask(options.api_token)
        except HubNotFound:
            await asyncio.sleep(every)
            continue
        except HubRefused:
            log.error(
                "The JupyterHub does not know this service's token, so nobody can sign in at its "
                "page: JUPYTERHUB_API_TOKEN has to be its api_token in jupyterhub_config.py."
            )
            return
        if not known.is_service:
            log.error(
                "JUPYTERHUB_API_TOKEN is a user's token; it has to be the service's own, its "
                "api_token in jupyterhub_config.py."
            )
        elif known.name != options.name:
            log.error(
                "The JupyterHub knows this service as %s: set JUPYTERHUB_SERVICE_NAME to that, "
                "for it is called %s here and answers at %s.",
                printable(known.name, 80),
                options.name,
                options.prefix,
            )
        return
