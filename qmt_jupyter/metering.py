"""What both facades of a host have for monitoring it: its metrics, and its tokens by hour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import runtime

if TYPE_CHECKING:
    from .host.service import HostService


class Metering:
    """Figures of a host for blocking callers."""

    _service: HostService

    def metrics(self) -> dict[str, Any]:
        """Counters and histograms since the host started, as plain values for a monitoring system.

        ``requests``: ``{"model", "outcome", "count"}`` of each model and way to end; ``refused``
        and ``failed`` say why, by an error's code, and so does ``not_admitted`` for guests that
        were turned away. ``tokens``: ``{"model", "prompt", "completion"}``, answers that run
        included. ``queue_seconds`` (until a slot was free), ``first_token_seconds`` (from the
        asking) and ``answer_tokens_per_second`` are histograms by model: ``buckets`` of ``[at
        most, how many]``, ``sum`` and ``count``. ``models``: ``{"model", "running", "waiting"}``.
        ``slots``, ``connections``, ``guests`` (identities that are connected) and
        ``active_users`` (who asked within five minutes, or whose requests run) are numbers.
        """
        return runtime.read(self._service.metrics)

    def hours(self, since: float, user: str | None = None) -> list[list[int]]:
        """``[start, prompt tokens, answer tokens]`` for each hour in which something was asked.

        From the hour that ``since`` falls into, oldest first, times in seconds since 1970; of
        everybody, or of one ``user``. Read from the host's records, which reach back before this
        start; a request counts for the hour it was asked in. Raises
        :class:`~qmt_jupyter.errors.OptionInvalid` for a time that is none, and a
        :class:`~qmt_jupyter.errors.ConfigurationError` where the records cannot be read.
        """
        return runtime.call(self._service.hours, since, user)


class AwaitableMetering:
    """The same for callers with an event loop of their own."""

    _service: HostService

    async def metrics(self) -> dict[str, Any]:
        """Counters and histograms since the start; like :meth:`qmt_jupyter.Host.metrics`."""
        return await runtime.read_async(self._service.metrics)

    async def hours(self, since: float, user: str | None = None) -> list[list[int]]:
        """Tokens by hour; like :meth:`qmt_jupyter.Host.hours`."""
        return await runtime.call_async(self._service.hours, since, user)
