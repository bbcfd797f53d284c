"""What ``QMT_HOME`` holds for any process: the host's records, and the links of a guest.

Nothing here needs a running node. A host that runs notices what is written at once.
"""

from __future__ import annotations

from typing import Any

from . import nodes
from .facade import Invite
from .guest import remembered as remembering
from .host import owner
from .host.limits import UNLIMITED, Limits
from .host.report import usage_rows
from .nodes import DEFAULT_TTL, DEFAULT_USES
from .settings import Settings


def sign_invite(
    *,
    name: str | None = None,
    uses: int = DEFAULT_USES,
    ttl: str = DEFAULT_TTL,
    limits: Limits = UNLIMITED,
) -> Invite:
    """Make an invite for the host of this ``QMT_HOME``, whether it runs now or later.

    Arguments as for :func:`qmt_jupyter.host`. Raises :class:`~qmt_jupyter.errors.NotHosting`
    where there has never been a host.
    """
    granted = nodes.terms(name, uses, ttl, limits)
    return Invite(owner.make_invite(Settings.from_environment().host_dir, granted), limits)


def revoke(which: str) -> dict[str, Any]:
    """Revoke for the host of this ``QMT_HOME``; like :meth:`qmt_jupyter.Host.revoke`.

    A host that runs stops who is meant within a few hundredths of a second.
    """
    return owner.revoke(Settings.from_environment().host_dir, which)


def read_usage() -> dict[str, Any]:
    """The usage of the host of this ``QMT_HOME``; like :meth:`qmt_jupyter.Host.usage`."""
    return owner.usage(Settings.from_environment().host_dir)


def rows_of(usage: dict[str, Any]) -> list[dict[str, Any]]:
    """A usage report with one flat row a guest; like :meth:`qmt_jupyter.Host.usage_rows`."""
    return usage_rows(usage)


def remember(url: str) -> None:
    """Keep an invite link, or ``hub``, in ``QMT_HOME`` (0600), for :func:`remembered`."""
    remembering.remember(Settings.from_environment().guest_dir, url)


def remembered(host: str | None = None) -> str | None:
    """The link that was remembered last, or None; with ``host`` the last one to that host.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid` where ``host`` is not one of them.
    """
    return remembering.newest(Settings.from_environment().guest_dir, host)
