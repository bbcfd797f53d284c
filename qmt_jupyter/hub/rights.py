"""Asks the Hub who a token belongs to, each time anew: the Hub's own client would remember it.

A no and no answer are told apart: the first ends what the token had opened, the second ends
nothing.
"""

from __future__ import annotations

import asyncio
import json
import re

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse

from ..errors import HubNotFound, HubRefused
from .person import Person, read_person

__all__ = ["Person", "Rights", "UnknownToken"]

# Seconds for the whole answer. A Hub that starts fifty servers takes its time.
DEADLINE = 10.0
_LARGEST_ANSWER = 1024 * 1024
# Questions at a time. More would wait at the Hub, which has one thread for them.
_AT_ONCE = 16
# Kept for asking again, whoever comes with however many tokens that are none.
_AGAIN_AT_ONCE = 8
_MOST_WAITING = 1000
_POSSIBLE_TOKEN = re.compile(r"[\x21-\x7e]{1,1024}")


class UnknownToken(HubRefused):
    """The Hub does not know the token, or not any more."""

    code = HubRefused.code


class Rights:
    """The Hub at ``api_url`` (``http://…/hub/api``), asked with the askers' own tokens."""

    def __init__(self, api_url: str, *, deadline: float = DEADLINE) -> None:
        self._url = api_url.rstrip("/") + "/user"
        self._deadline = deadline
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._again = asyncio.Semaphore(_AGAIN_AT_ONCE)
        self._waiting = 0
        self._client = AsyncHTTPClient(
            force_instance=True,
            max_clients=_AT_ONCE + _AGAIN_AT_ONCE,
            max_body_size=_LARGEST_ANSWER,
        )

    async def ask(self, token: str, *, again: bool = False) -> Person:
        """Whose token it is, and what it allows, as the Hub says it now.

        ``again``: one that was asked about before; these have places of their own.

        Raises :class:`UnknownToken` where it is nobody's (any more), and
        :class:`~qmt_jupyter.errors.HubNotFound` where the Hub gives no answer that says so.
        """
        if not _POSSIBLE_TOKEN.fullmatch(token):
            raise _unknown()
        if self._waiting >= _MOST_WAITING and not again:
            raise _no_answer("too many are asking")
        self._waiting += 1
        try:
            async with self._again if again else self._places:
                response = await self._fetch(token)
        finally:
            self._waiting -= 1
        # An unknown token is a 403 to this Hub; a 404 that is not its own comes of what stands
        # before a Hub that is away.
        if response.code in (401, 403) or (response.code == 404 and _is_hubs_own(response)):
            raise _unknown()
        if response.code != 200:
            raise _no_answer(f"it answered with status {response.code}")
        try:
            return read_person(json.loads(response.body))
        except (ValueError, RecursionError):
            raise _no_answer("its answer is none of a JupyterHub's") from None

    async def _fetch(self, token: str) -> HTTPResponse:
        request = HTTPRequest(
            self._url,
            headers={"Authorization": f"token {token}", "Accept": "application/json"},
            connect_timeout=self._deadline,
            request_timeout=self._deadline,
            # Where the Hub were to send it, the token would go along.
            follow_redirects=False,
        )
        # Cancelled with who waits for it, it would complain in the log at its own end.
        answer = self._client.fetch(request, raise_error=False)
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({answer})
        try:
            return answer.result()
        except Exception as error:
            # Whatever it is, its text may hold addresses; the kind is enough.
            raise _no_answer(type(error).__name__) from None

    def close(self) -> None:
        """Let go of the connections; safe to call twice."""
        self._client.close()


def _is_hubs_own(response: HTTPResponse) -> bool:
    """Whether an error has the form that a Hub's API gives all of its errors."""
    try:
        said = json.loads(response.body)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("status") == response.code


def _unknown() -> UnknownToken:
    return UnknownToken(
        "This JupyterHub does not know the token that was shown.",
        next_step="Restart your server from the Hub's control panel.",
    )


def _no_answer(why: str) -> HubNotFound:
    return HubNotFound(
        f"The JupyterHub cannot be asked who this is ({why}).",
        next_step="Try again in a moment.",
        retry_after=5,
    )
