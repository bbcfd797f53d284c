"""``%qmt_host`` and ``%qmt_invite``: how a host and its invites are shown, and where links go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..harmless import shareable
from ..settings import user_path, write_private
from .display import is_terminal
from .state import State

if TYPE_CHECKING:
    from ..api import Host
    from ..facade import Invite


def introduce(state: State, shell: Any, link_file: str | None) -> None:
    """Say what runs, and show the host's panel; in a terminal its invite."""
    from ..words import host_lines

    host = state.hosting()
    panel = None if is_terminal(shell) else _panel(state, host)
    said = "\n".join(host_lines(host))
    # Printed, addresses would be saved; a panel shows them live.
    print(said if is_terminal(shell) else shareable(said), flush=True)
    _write_link(host.invite, link_file)
    if panel is not None:
        _display(panel)
    else:
        _tell(host.invite, shell)


def hand_over(state: State, invite: Invite, shell: Any, link_file: str | None) -> None:
    """Show one invite where it will not be saved."""
    _write_link(invite, link_file)
    if is_terminal(shell) or not _has_widgets():
        _tell(invite, shell)
        return
    from .panels.invite import InvitePanel

    _display(InvitePanel(state.hosting(), invite))


def _panel(state: State, host: Host) -> Any:
    """The one panel of this host, or None where there are no widgets."""
    if not _has_widgets():
        return None
    from .panels.host import HostPanel

    panel = state.host_panel
    # Closed: by `Widget.close_all` or the like.
    if panel is None or panel.host is not host or panel.comm is None:
        panel = state.host_panel = HostPanel(host)
    return panel


def _has_widgets() -> bool:
    try:
        import anywidget  # noqa: F401
    except ImportError:
        return False
    return True


def _display(panel: Any) -> None:
    from .panels import frozen

    frozen.show(panel)


def _write_link(invite: Invite, link_file: str | None) -> None:
    if link_file:
        path = user_path(link_file).absolute()
        write_private(path, f"{invite.url}\n".encode())
        print(f"The invite link is in {link_file}.")


def _tell(invite: Invite, shell: Any) -> None:
    """The link in a terminal; elsewhere, why it is not shown."""
    if is_terminal(shell):
        print(f"\n{invite.qr()}\n\n{invite.url}\n")
        return
    # Printed, the link would be saved with the notebook.
    print(
        "The invite is not shown here: anywidget, or what it needs, cannot be imported. "
        "--link-file PATH writes the link to a file."
    )
