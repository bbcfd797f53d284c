"""A key and where it comes from. It is never written down, shown, or taken from a command line.

A source is ``env:NAME`` (an environment variable), ``keyring:SERVICE`` (the system's keyring, with
``qmt`` as user) or ``prompt`` (asked for without echo).
"""

from __future__ import annotations

import getpass
import logging
import os
import re
import traceback
from collections.abc import Callable

from ..errors import KeyUnavailable, OptionInvalid
from ..harmless import printable

KEYRING_USER = "qmt"
# A run of the key this long in somebody else's text is too much of it.
_TELLING = 6

_SOURCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)|keyring:(\S{1,100})|prompt")
_HIDDEN = "[key]"


class Secret:
    """Holds one key. Its repr, str, pickle and copy show or give nothing."""

    __slots__ = ("_reveal",)

    def __init__(self, value: str) -> None:
        # In a closure, so that no attribute's repr shows it.
        self._reveal: Callable[[], str] = lambda: value

    def __repr__(self) -> str:
        return "<Secret>"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret cannot be pickled or copied")

    def reveal(self) -> str:
        """The key itself, for the one place that sends it."""
        return self._reveal()

    def scrub(self, text: str) -> str:
        """``text`` without the key and without any part of it of more than six characters."""
        value, size = self._reveal(), _TELLING + 1
        if len(value) < size:
            return text.replace(value, _HIDDEN) if value else text
        parts = {value[at : at + size] for at in range(len(value) - size + 1)}
        kept: list[str] = []
        at = 0
        while at < len(text):
            end = at
            while text[end : end + size] in parts:
                end += 1
            if end > at:
                kept.append(_HIDDEN)
                at = end + size - 1
            else:
                kept.append(text[at])
                at += 1
        return "".join(kept)


class Scrubbing(logging.Filter):
    """Takes a key out of what libraries log, while :meth:`install` ed in their loggers.

    At debug level an HTTP library logs the headers that a server answers with, and a server may
    repeat the key there.
    """

    def __init__(self, secret: Secret) -> None:
        super().__init__()
        self._secret = secret
        self._loggers: list[logging.Logger] = []

    def install(self, libraries: tuple[str, ...]) -> None:
        """Watch every logger there is whose name begins with one of ``libraries``."""
        for name in list(logging.root.manager.loggerDict):
            if name.startswith(libraries):
                logger = logging.getLogger(name)
                logger.addFilter(self)
                self._loggers.append(logger)

    def remove(self) -> None:
        """Watch no more."""
        while self._loggers:
            self._loggers.pop().removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, without the key."""
        said = record.getMessage()
        clean = self._secret.scrub(said)
        if clean != said:
            record.msg, record.args = clean, None
        if record.exc_info and record.exc_info[1] is not None:
            trace = "".join(traceback.format_exception(record.exc_info[1]))
            record.exc_info, record.exc_text = None, self._secret.scrub(trace)
        return True


def read_key(source: str | None, owner: str | None = None) -> Secret | None:
    """The key from ``source``, or None where no source is given.

    ``owner`` is whose key it is, for the person who is asked for it.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid` for what is no source, without repeating it:
    it may be a key that somebody put there; and :class:`~qmt_jupyter.errors.KeyUnavailable`.
    """
    if source is None:
        return None
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise OptionInvalid(
            "A key is not given itself, since it would stay in a history or a notebook.",
            next_step="Say where it is: env:NAME, keyring:SERVICE or prompt. If this was a real "
            "key, replace it at its provider.",
        )
    if match[1]:
        value, where = os.environ.get(match[1], ""), f"the environment variable {match[1]}"
    elif match[2]:
        value, where = _from_keyring(match[2]), f"the keyring under {match[2]}"
    else:
        value, where = _from_prompt(owner), "what was typed"
    value = value.strip()
    if not value:
        raise KeyUnavailable(f"There is no key in {where}.")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise KeyUnavailable(f"What is in {where} is not a key: it has characters that none has.")
    return Secret(value)


def _from_keyring(service: str) -> str:
    try:
        import keyring
    except ImportError:
        raise KeyUnavailable(
            "The keyring needs the package keyring.",
            next_step="Install it with: pip install 'qmt-jupyter[upstream]'",
        ) from None
    try:
        return keyring.get_password(service, KEYRING_USER) or ""
    except keyring.errors.KeyringError as error:
        kind = type(error).__name__
    raise KeyUnavailable(f"The system's keyring cannot be read ({kind}).")


def _from_prompt(owner: str | None) -> str:
    try:
        return getpass.getpass(f"Key of {printable(owner or 'the upstream', 80)}: ")
    except (EOFError, NotImplementedError, RuntimeError):
        pass
    raise KeyUnavailable("There is nobody to ask for the key.")
