"""One service of the JupyterHub, over HTTP: it gives this server's user a seat and takes it back.

What a service says is not believed further than it can be checked: an answer is small and comes
in time, no redirect is followed (the token would go along), a link has to be a valid invite, and
a sentence is made printable. The token is read for each request and kept nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import anyio
from tornado.httpclient import HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httputil import HTTPInputError
from tornado.iostream import StreamBufferFullError, StreamClosedError, UnsatisfiableReadError
from tornado.netutil import Resolver
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from ... import __version__
from ...errors import HubNotFound, HubRefused, InviteError
from ...harmless import LONGEST_SENTENCE, printable
from ...identity import link
from ...mesh.addresses import Reach
from ...mesh.locate import Source
from . import environment
from .tunnel import HubTunnel

ANSWER_WITHIN = 5.0  # seconds
GIVE_UP_WITHIN = 2.0
_LARGEST = 16 * 1024
_RENEW_S = 300.0
_SHORTEST_RENEW_S = 1.0
_LONGEST_RENEW_S = 3600.0
_SOON = 2.0
_LONGEST_WAIT = 60.0


class _Addresses(Resolver):
    """Looks names up, and remembers them: an interpreter that ends has no threads for that."""

    _known: ClassVar[dict[tuple[str, int], list[tuple[int, Any]]]] = {}

    async def resolve(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[tuple[int, Any]]:
        """The addresses of a host, each with its family."""
        try:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        except RuntimeError:
            if (host, port) not in self._known:
                raise OSError("no name can be looked up any more") from None
            return self._known[host, port]
        self._known[host, port] = [(int(each[0]), each[4]) for each in found]
        return self._known[host, port]


@dataclass(frozen=True)
class Granted:
    """A seat: its link, whose it is, and in how many seconds it is to be asked for again."""

    link: link.Link
    user: str
    renew_s: float


@dataclass(frozen=True)
class Service:
    """A service, by its base URL."""

    url: str

    async def seat(self, guest: str) -> Granted:
        """Ask for a seat, or for a later end of the one there is; ``guest`` is its peer id.

        Raises :class:`~qmt_jupyter.errors.HubRefused` where the service says no, which is for
        good, and :class:`~qmt_jupyter.errors.HubNotFound` where it does not answer, or not in a
        way that can be used.
        """
        response = await self._request("POST", guest, ANSWER_WITHIN)
        if response.code == 200:
            return self._granted(_object(response))
        raise self._error(response)

    async def give_up(self, guest: str) -> None:
        """Give the seat up. Raises :class:`~qmt_jupyter.errors.HubNotFound` like :meth:`seat`."""
        await self._request("DELETE", guest, GIVE_UP_WITHIN)

    def tunnel(self, reach: Callable[[], Reach]) -> Source:
        """The way to the service's host through the Hub's proxy, where no other leads to it."""
        return HubTunnel(self.url, environment.token, reach).source()

    async def _request(self, method: str, guest: str, seconds: float) -> HTTPResponse:
        # A client of its own for each request: nothing of one stays for another, and no
        # configuration of the process (a proxy, another client) gets between.
        client = SimpleAsyncHTTPClient(
            force_instance=True,
            resolver=_Addresses(),
            max_buffer_size=4 * _LARGEST,
            max_header_size=_LARGEST,
            max_body_size=_LARGEST,
        )
        try:
            with contextlib.closing(client), anyio.fail_after(seconds + 0.5):
                return await client.fetch(
                    HTTPRequest(
                        f"{self.url}api/seat",
                        method=method,
                        headers={
                            "Authorization": f"token {environment.token()}",
                            "Content-Type": "application/json",
                            "Accept": "application/json",
                        },
                        body=json.dumps({"guest": guest}),
                        allow_nonstandard_methods=True,  # a body with DELETE
                        user_agent=f"qmt-jupyter/{__version__}",
                        follow_redirects=False,
                        decompress_response=False,
                        connect_timeout=seconds,
                        request_timeout=seconds,
                    ),
                    raise_error=False,
                )
        except TimeoutError:
            reason = "no answer in time"
        except (StreamBufferFullError, UnsatisfiableReadError):
            reason = "its answer is too large"
        except (OSError, ValueError, HTTPClientError, HTTPInputError, StreamClosedError) as error:
            reason = printable(getattr(error, "strerror", None) or str(error), 100)
        raise HubNotFound(f"The service {self.url} does not answer ({reason}).")

    def _granted(self, said: dict[str, Any]) -> Granted:
        try:
            granted = link.read(said.get("link", ""))
        except InviteError:
            raise HubNotFound(f"The service {self.url} gave something that is no invite.") from None
        return Granted(
            granted,
            _shown(said.get("user"), 100),
            _bounded(said.get("renew_s"), _RENEW_S, _SHORTEST_RENEW_S, _LONGEST_RENEW_S),
        )

    def _error(self, response: HTTPResponse) -> HubNotFound | HubRefused:
        said = _object(response)
        sentence = _shown(said.get("sentence"), LONGEST_SENTENCE)
        if response.code in (401, 403) and said.get("code") == HubRefused.code:
            # Whatever stands between may say 403, too; only the service's own word is final.
            return HubRefused(sentence or f"The service {self.url} does not give you a seat.")
        why = sentence or f"HTTP {response.code}"
        after = _bounded(response.headers.get("Retry-After"), _SOON, 0.0, _LONGEST_WAIT)
        return HubNotFound(
            f"The service {self.url} gives no seat now ({why}).",
            retry_after=after if response.code in (429, 503) else None,
        )


def _object(response: HTTPResponse) -> dict[str, Any]:
    """The JSON object of an answer; empty where it is none."""
    try:
        said = json.loads(response.body or b"")
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _shown(text: object, limit: int) -> str:
    """What may be shown of a text: one line, without the token that the service was sent."""
    said = printable(text, limit) if isinstance(text, str) else ""
    with contextlib.suppress(HubNotFound):
        said = said.replace(environment.token(), "…")
    return said


def _bounded(value: object, default: float, least: float, most: float) -> float:
    """A number of seconds, whatever was sent for it."""
    try:
        number = float(value) if isinstance(value, (int, float, str)) else default
    except (ValueError, OverflowError):
        number = default
    return min(max(number if math.isfinite(number) else default, least), most)
