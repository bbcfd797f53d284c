"""What an invite allows beyond its uses and its lifetime. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import OptionInvalid

_MOST = 2**53
_MOST_MODELS = 64


@dataclass(frozen=True)
class Limits:
    """Limits of one invite, checked at every request. None, and no ``models``: not limited.

    ``requests`` and ``tokens`` (prompt and answer together) are totals; ``requests_per_minute``
    and ``tokens_per_minute`` hold in any sixty seconds; ``concurrent`` counts requests that run
    or wait; ``answer_tokens`` cuts one answer; ``models`` names those that may be asked.

    They hold for all guests of the invite together, or with ``per_guest`` for each by itself.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid` for a number below 1.
    """

    requests: int | None = None
    tokens: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None
    answer_tokens: int | None = None
    models: tuple[str, ...] = ()
    per_guest: bool = False

    def __post_init__(self) -> None:
        for name in COUNTED:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
                flag = name.replace("_", "-")
                raise OptionInvalid(
                    f"{value!r} is not a limit for {flag}.",
                    next_step="Give a whole number of at least 1, or leave it out for no limit.",
                )
        # A bare string would count as its letters.
        models = (self.models,) if isinstance(self.models, str) else tuple(self.models)
        if len(models) > _MOST_MODELS or not all(isinstance(m, str) and m for m in models):
            raise OptionInvalid("The models that an invite allows are given by their names.")
        object.__setattr__(self, "models", models)

    def as_dict(self) -> dict[str, Any]:
        """The limits that are set, ready for JSON."""
        given = {key: value for key, value in asdict(self).items() if value}
        if "models" in given:
            given["models"] = list(given["models"])
        return given

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Limits:
        """Read back what :meth:`as_dict` gave; unknown names raise TypeError."""
        return cls(**stored)

    def allows(self, model: str) -> bool:
        """Whether ``model`` may be asked."""
        return not self.models or model in self.models


COUNTED = tuple(each.name for each in fields(Limits) if each.name not in ("models", "per_guest"))
UNLIMITED = Limits()
