"""Where files live, and what can be configured from outside.

Environment: ``QMT_HOME`` moves every file, ``QMT_MODELS`` the model files alone (they are large);
``QMT_INTERFACES`` restricts the network to some
interfaces (comma-separated names or addresses, e.g. ``lo`` or ``127.0.0.1``; default: all);
``QMT_INVITE`` may hold an invite link, so that it need not stand in a command line;
``QMT_DETECT=off`` keeps ``%qmt_host`` from looking for servers that run on this machine;
``QMT_BOOTSTRAP`` names nodes of the DHT that always run (comma-separated ``HOST:PORT``), and
``QMT_DHT=off`` keeps this process out of the DHT;
``QMT_HUB_URL`` names the services of a JupyterHub that this server's user may have a seat at
(comma-separated base URLs; the Hub sets it, and the server's token ``JUPYTERHUB_API_TOKEN``).
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from .errors import HomeNotWritable, OptionInvalid
from .harmless import printable

INVITE_VARIABLE = "QMT_INVITE"
DETECT_VARIABLE = "QMT_DETECT"
HUB_VARIABLE = "QMT_HUB_URL"
HUB_TOKEN_VARIABLE = "JUPYTERHUB_API_TOKEN"  # noqa: S105  # where it is, not what it is
HUB = "hub"
"""What stands for a link where the services of the JupyterHub are meant."""


@dataclass(frozen=True)
class Settings:
    """The configuration of one process, read once.

    ``home`` is the directory of keys, models and records (0700). ``interfaces`` names what the
    network may use: interface names or addresses; empty means every usable one. ``detect`` is
    ``on`` or ``off``.
    """

    home: Path
    interfaces: tuple[str, ...] = field(default=())
    models: Path | None = None
    detect: str = "on"
    bootstrap: tuple[str, ...] = field(default=())
    dht: bool = True

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the environment; nothing is created yet."""
        home = os.environ.get("QMT_HOME")
        models = os.environ.get("QMT_MODELS")
        return cls(
            home=_absolute(home) if home else platformdirs.user_data_path("qmt_jupyter"),
            interfaces=_listed("QMT_INTERFACES"),
            models=_absolute(models) if models else None,
            detect=os.environ.get(DETECT_VARIABLE, "").strip() or "on",
            bootstrap=_listed("QMT_BOOTSTRAP"),
            dht=_switched_on("QMT_DHT"),
        )

    @property
    def looks_for_servers(self) -> bool:
        """Whether to look for servers on this machine. Raises OptionInvalid."""
        if self.detect not in ("on", "off"):
            raise OptionInvalid(
                f"{DETECT_VARIABLE} says neither on nor off.",
                next_step=f"Set {DETECT_VARIABLE}=off, or unset it.",
            )
        return self.detect == "on"

    @property
    def host_dir(self) -> Path:
        """The host's identity, lock and records."""
        return self.home / "host"

    @property
    def guest_dir(self) -> Path:
        """The guest's identity and remembered invites."""
        return self.home / "guest"

    @property
    def models_dir(self) -> Path:
        """Downloaded model files."""
        return self.models or self.home / "models"


def _listed(variable: str) -> tuple[str, ...]:
    parts = os.environ.get(variable, "").split(",")
    return tuple(part.strip() for part in parts if part.strip())


def _switched_on(variable: str) -> bool:
    """Whether a switch is on, as it is unless it says otherwise."""
    text = os.environ.get(variable, "").strip().lower()
    if text not in ("", "on", "off", "1", "0", "yes", "no", "true", "false"):
        raise OptionInvalid(
            f"{variable} is {text[:20]!r}, which is neither on nor off.",
            next_step=f"Set {variable}=off, or leave it out.",
        )
    return text not in ("off", "0", "no", "false")


def is_on_hub() -> bool:
    """Whether this process is in a server of a JupyterHub that has a service."""
    return all(os.environ.get(each, "").strip() for each in (HUB_VARIABLE, HUB_TOKEN_VARIABLE))


def private_directory(path: Path) -> Path:
    """Create ``path`` and its parents for this user alone (0700) and return it.

    Raises :class:`~qmt_jupyter.errors.HomeNotWritable`.
    """
    try:
        # With parents=True only the last one would get the mode.
        for parent in (*reversed(path.parents), path):
            parent.mkdir(mode=0o700, exist_ok=True)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o700)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(f"no write permission for {path}")
    except OSError as error:
        raise HomeNotWritable(f"{path} cannot be written ({error.strerror or error}).") from None
    return path


def write_private(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically, readable by this user alone (0600).

    Raises :class:`~qmt_jupyter.errors.HomeNotWritable`.
    """
    # A directory that is there already is the user's own affair.
    directory = path.parent if path.parent.is_dir() else private_directory(path.parent)
    try:
        handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise HomeNotWritable(f"{path} cannot be written ({error.strerror or error}).") from None


def user_path(text: str) -> Path:
    """A path as a person gives it, with ``~`` for a home. Raises OptionInvalid."""
    try:
        if "\0" not in text:
            return Path(text).expanduser()
    except RuntimeError:  # a user who has no home here
        pass
    raise OptionInvalid(
        f"{printable(text, 120)} is no path on this machine.", next_step="Give it without ~."
    )


def _absolute(path: str) -> Path:
    # A child process that fetches a model has another working directory.
    return user_path(path).absolute()
