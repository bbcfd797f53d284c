"""A host's refusal, which travels as a code and a sentence, becomes an error here."""

from __future__ import annotations

from ..errors import InviteError, MeshError, ProviderError, QmtError, Refused
from ..harmless import printable

_BY_CODE: dict[str, type[QmtError]] = {}


def _collect(cls: type[QmtError]) -> None:
    _BY_CODE[cls.code] = cls
    for sub in cls.__subclasses__():
        _collect(sub)


_collect(QmtError)


def from_remote(code: str, sentence: str, retry_after: float | None = None) -> QmtError:
    """Rebuild an error that the other side reported as a code and a sentence.

    Both come from the network: the sentence is made printable and the next step is ours. An
    unknown code becomes a plain :class:`Refused`.
    """
    cls = _BY_CODE.get(code, Refused)
    if not issubclass(cls, (Refused, ProviderError, MeshError, InviteError)):
        cls = Refused
    said = printable(sentence) or "The host refused without saying why."
    return cls(said, retry_after=retry_after)
