"""Which host a request goes to, and which is next when that one cannot take it. Pure.

A prompt is sent to one host at a time, and to another only when the one before refused it or
vanished before the first token of an answer. A request that names its host goes nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from .. import errors
from ..errors import InviteError, MeshError, ModelUnknown, OptionInvalid, QmtError, Refused
from ..harmless import printable
from ..identity.peer_id import short
from ..wire.messages import Delta, Done, Usage

SHORTEST_ID = 4
"""So many characters of a peer id, its first or its last, may stand for it."""

_MOST_NAMED = 5


@dataclass(frozen=True)
class Passed:
    """A host that did not take the request: its peer id, and the code of its error."""

    host_id: str
    code: str


@dataclass(frozen=True)
class Route:
    """Which host a request goes to; comes before its replies, and anew when the host changes.

    ``mesh`` is the mesh's name; ``passed`` are the hosts that were asked before.
    """

    host_id: str
    mesh: str = ""
    passed: tuple[Passed, ...] = ()


class Known(Protocol):
    """What a host is called: a link, or whatever else knows it."""

    @property
    def host_id(self) -> str:
        """Its peer id."""

    @property
    def mesh_name(self) -> str:
        """Its mesh's name."""


H = TypeVar("H", bound=Known)


@dataclass(frozen=True)
class Candidate(Generic[H]):
    """A host, and the ``model`` to ask it for. ``order``: its place in the order of joining.

    ``preferred`` is False where a request that names no model would get another there than the
    first one offered. ``load`` is requests for each slot and ``rtt_ms`` the round trip (None: not
    known); ``paused``: it failed a moment ago; ``context`` is the model's there, in tokens.
    """

    host: H
    model: str
    order: int
    preferred: bool = True
    connected: bool = True
    paused: bool = False
    load: float | None = None
    rtt_ms: float | None = None
    context: int | None = None


def ranked(candidates: Iterable[Candidate[H]]) -> list[Candidate[H]]:
    """The candidates, the one to ask first in front.

    Those with the preferred model come first, of them the connected ones before those that would
    have to be found, those without a failure before the others; then the least loaded, the
    nearest, the one joined first. An unknown load counts as none.
    """

    def key(each: Candidate[H]) -> tuple[bool, bool, bool, float, float, int]:
        distance = float("inf") if each.rtt_ms is None else each.rtt_ms
        last = (not each.preferred, not each.connected, each.paused)
        return *last, each.load or 0.0, distance, each.order

    return sorted(candidates, key=key)


def default_model(offered: Iterable[tuple[bool, Sequence[str]]]) -> str | None:
    """The model of a request that names none: the first offered, in the order of joining.

    ``offered`` is, host by host, whether it is connected and its models; one that is not connected
    counts only where no other offers anything. None where nobody does.
    """
    first: str | None = None
    for connected, names in offered:
        if connected and names:
            return names[0]
        first = first or (names[0] if names else None)
    return first


def of_host(hosts: Sequence[H], text: str) -> H:
    """The host that ``text`` means: a mesh's name, a peer id, or its first or last characters.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid` where none is meant, or more than one.
    """
    wanted = text.strip()
    exact = [each for each in hosts if each.host_id == wanted]
    meant = exact or [each for each in hosts if _means(wanted, each)]
    if len(meant) == 1:
        return meant[0]
    listed = ", ".join(called(each) for each in (meant or hosts)[:_MOST_NAMED])
    if len(meant or hosts) > _MOST_NAMED:
        listed += f" and {len(meant or hosts) - _MOST_NAMED} more"
    shown = printable(wanted, 80)
    if meant:
        raise OptionInvalid(
            f"{shown!r} may be each of {listed}.",
            next_step="Give more characters of the peer id.",
        )
    raise OptionInvalid(
        f"No host {shown!r} has been joined; there is {listed or 'none'}.",
        next_step="Give a mesh's name, a peer id, or its first or last characters.",
    )


def _means(wanted: str, host: Known) -> bool:
    if wanted and wanted == host.mesh_name:
        return True
    return len(wanted) >= SHORTEST_ID and (
        host.host_id.startswith(wanted) or host.host_id.endswith(wanted)
    )


def called(host: Known) -> str:
    """A host's mesh and the end of its peer id."""
    name = printable(host.mesh_name, 60)
    return f"{name} ({short(host.host_id)})" if name else short(host.host_id)


# The next host ---------------------------------------------------------------------------------


def begins(reply: object) -> bool:
    """Whether a reply carries the first of an answer: from here on it is this host's to give."""
    if not isinstance(reply, Delta):
        return isinstance(reply, (Usage, Done))
    return any(
        choice.get("finish_reason") or _says_something(choice.get("delta"))
        for choice in reply.choices
    )


def _says_something(delta: object) -> bool:
    return isinstance(delta, dict) and any(v for key, v in delta.items() if key != "role")


def passes_on(error: QmtError) -> bool:
    """Whether another host may be asked after ``error``.

    Not when the request itself is wrong, or this machine is: the next host would only read it too.
    """
    if isinstance(error, errors.RequestInvalid):
        return False
    return isinstance(error, (MeshError, Refused, InviteError, errors.ProviderError))


# What a person can do something about tells more than who is away.
_USEFUL: tuple[tuple[type[QmtError], int], ...] = (
    (errors.HostNotFound, 0),
    (MeshError, 1),
    (errors.MembershipEnded, 2),
    (InviteError, 2),
    (errors.Stopped, 3),
    (ModelUnknown, 3),
    (errors.LimitReached, 5),
    (errors.PromptTooLong, 6),
)
_MIDDLING = 4
_BY_WAITING = (errors.Busy, errors.TooManyAtOnce, errors.TokensReserved)


def _usefulness(error: QmtError) -> tuple[bool, int, float]:
    """Where waiting helps, the shorter the better; then by kind."""
    waits = error.retry_after is not None or isinstance(error, _BY_WAITING)
    # A service that is away says nothing of when it is back: the time is when to look again.
    waits = waits and not isinstance(error, errors.HubNotFound)
    kind = next((rank for cls, rank in _USEFUL if isinstance(error, cls)), _MIDDLING)
    return waits, kind, -(error.retry_after or 0.0)


def is_at_fault(error: QmtError) -> bool:
    """Whether the host, and not the request, is why it was not taken."""
    wrong = (errors.PromptTooLong, ModelUnknown, errors.ModelNotAllowed)
    return passes_on(error) and not isinstance(error, wrong)


def most_useful(failed: Sequence[tuple[Known | None, QmtError]]) -> QmtError:
    """Of the errors of several hosts, the one to show; it says whose it is.

    A service that told of no host (None) names itself in its error.
    """
    if len(failed) == 1:
        return failed[0][1]
    host, error = max(failed, key=lambda each: _usefulness(each[1]))
    if host is None:
        return error
    told = type(error)(
        f"None of {len(failed)} hosts could; {called(host)}: {error.sentence}",
        next_step=error.next_step,
        retry_after=error.retry_after,
    )
    if isinstance(error, errors.HostNotFound) and isinstance(told, errors.HostNotFound):
        told.report = error.report
    return told


class Attempts(Generic[H]):
    """One request's way from host to host. ``named``: its host was chosen by the asker."""

    def __init__(self, named: H | None = None) -> None:
        self._named = named
        self._refused: list[tuple[Candidate[H], QmtError]] = []

    @property
    def passed(self) -> tuple[Passed, ...]:
        """The hosts that did not take it, in the order they were asked."""
        return tuple(Passed(each.host.host_id, error.code) for each, error in self._refused)

    @property
    def was_answered(self) -> bool:
        """Whether a host that is there has said no: it was not just out of reach."""
        return any(not isinstance(error, MeshError) for _, error in self._refused)

    def next(self, candidates: Iterable[Candidate[H]]) -> Candidate[H] | None:
        """Whom to ask now, of those who offer the model now; None where nobody ever did.

        Where everybody has refused, raises the most useful of their errors.
        """
        left = [each for each in ranked(candidates) if self._may_be_asked(each)]
        if left:
            return left[0]
        if self._refused:
            raise most_useful([(each.host, error) for each, error in self._refused])
        return None

    def left(self, candidates: Iterable[Candidate[H]]) -> int:
        """How many of those who offer the model now may still be asked."""
        return sum(self._may_be_asked(each) for each in candidates)

    def refused(self, candidate: Candidate[H], error: QmtError) -> None:
        """Note that a host did not take it. Raises ``error`` where no other may be asked."""
        self._refused.append((candidate, error))
        if self._named is not None or not passes_on(error):
            raise error

    def _may_be_asked(self, candidate: Candidate[H]) -> bool:
        if self._named is not None and candidate.host is not self._named:
            return False
        for former, error in self._refused:
            if former.host is candidate.host:
                return False
            if isinstance(error, errors.PromptTooLong) and not _is_longer(candidate, former):
                return False
        return True


def _is_longer(candidate: Candidate[H], former: Candidate[H]) -> bool:
    """Whether a prompt that was too long for ``former`` may fit."""
    return candidate.context is None or candidate.context > (former.context or 0)
