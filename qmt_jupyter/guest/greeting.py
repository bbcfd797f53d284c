"""The first words to a host: the invite's token, who is joining, and what the host says to it."""

from __future__ import annotations

import time

from .. import __version__
from ..errors import HostGone, ProtocolViolation, VersionMismatch
from ..identity import keys, statement
from ..identity.link import Link
from ..mesh.channel import Channel
from ..mesh.endpoint import Connection, Endpoint, TransportError
from ..wire import exchange, frames, messages
from ..wire.frames import FrameError
from .refusal import from_remote


async def greet(
    identity: keys.Identity, link: Link, name: str, endpoint: Endpoint, connection: Connection
) -> tuple[Channel, messages.Welcome]:
    """Be admitted over a fresh connection: the control stream and the host's welcome.

    Raises what the host's refusal says, :class:`~qmt_jupyter.errors.HostGone`,
    :class:`~qmt_jupyter.errors.VersionMismatch` or
    :class:`~qmt_jupyter.errors.ProtocolViolation`. Has no deadline of its own.
    """
    try:
        control = Channel(await connection.open_stream(), frames.CONTROL_LIMIT)
        control.post(
            messages.encode(
                messages.Greeting(
                    version=messages.VERSION,
                    token=link.invite.token,
                    statement=statement.create(
                        identity, endpoint.public_key, link.invite.host_key, time.time()
                    ),
                    software=f"qmt-jupyter/{__version__}",
                    name=name,
                )
            )
        )
        payload = await control.receive()
        if payload is None:
            raise HostGone("The host closed the connection instead of greeting.")
        theirs = messages.peer_version(payload)
        if theirs != messages.VERSION:
            raise VersionMismatch(
                exchange.version_sentence(ours=messages.VERSION, theirs=theirs, we_are="guest")
            )
        answer = messages.decode_to_guest(payload)
    except FrameError as error:
        raise ProtocolViolation(f"The host's greeting cannot be read ({error}).") from None
    except TransportError:
        raise HostGone("The connection to the host was lost while greeting.") from None
    if isinstance(answer, messages.Refusal):
        raise from_remote(answer.code, answer.sentence, answer.retry_after)
    if not isinstance(answer, messages.Welcome):
        raise ProtocolViolation("The host did not greet.")
    return control, answer
