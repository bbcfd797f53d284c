"""What can be changed while the process runs: ``qmt_jupyter.config``, in IPython ``%config``."""

from __future__ import annotations

from collections.abc import Callable

from .errors import OptionInvalid


class Configuration:
    """Preferences of this process, none of them kept.

    In a notebook ``%config QmtMagics.auto_fallback = False`` says the same.
    """

    __slots__ = ("_auto_fallback", "_changed")

    def __init__(self) -> None:
        self._auto_fallback = True
        self._changed: Callable[[], None] | None = None

    @property
    def auto_fallback(self) -> bool:
        """Whether a model that this process does not host is looked for on the mesh.

        Only a model that was asked for by its name: without a name, the own host answers where
        there is one. When False, such a model is an error until it is asked for through a mesh.
        """
        return self._auto_fallback

    @auto_fallback.setter
    def auto_fallback(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise OptionInvalid(
                f"auto_fallback cannot be {str(value)[:40]!r}.",
                next_step="Set it to True or False.",
            )
        self._auto_fallback = value
        if self._changed is not None:
            self._changed()

    def on_change(self, changed: Callable[[], None] | None) -> None:
        """Have ``changed`` called after each change, instead of what was called before."""
        self._changed = changed

    def __repr__(self) -> str:
        return f"<qmt_jupyter.config auto_fallback={self._auto_fallback}>"


config = Configuration()
