"""A service's tunnel without a whole JupyterHub: its web server, a host, and a scripted Hub."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import struct
from types import SimpleNamespace

from tornado import web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from qmt_jupyter.guest.hub.tunnel import HubTunnel
from qmt_jupyter.guest.mesh import GuestMesh
from qmt_jupyter.hub import tunnel
from qmt_jupyter.hub.desk import Desk
from qmt_jupyter.hub.options import Options
from qmt_jupyter.hub.overrides import Overrides
from qmt_jupyter.hub.policy import Policy
from qmt_jupyter.hub.rights import Rights
from qmt_jupyter.mesh import addresses

PREFIX = "/services/qmt/"


class ScriptedHub(web.RequestHandler):
    """``/hub/api/user`` of a Hub that knows some tokens; ``status`` overrides its answers."""

    def initialize(self, known, script):
        self.known, self.script = known, script

    def get(self):
        if self.script.status:
            self.set_status(self.script.status)
            return
        name = self.known.get(self.request.headers.get("Authorization", "").partition(" ")[2])
        if name is None:
            self.set_status(403)
            return
        scopes = [] if name in self.script.without_access else ["access:services!service=qmt"]
        self.write({"kind": "user", "name": name, "groups": [], "scopes": scopes})


class TunnelService:
    """The web server in front of one host; all of it in the test's own loop."""

    def __init__(self, host, home, *, recheck=0.2):
        self.known = {"token-of-ann": "ann", "token-of-ben": "ben"}
        self.script = SimpleNamespace(status=0, without_access=set())
        scripted = {"known": self.known, "script": self.script}
        asked = web.Application([(r"/hub/api/user", ScriptedHub, scripted)])
        self._hub, hub_port = _serve(asked)
        self.rights = Rights(f"http://127.0.0.1:{hub_port}/hub/api")
        options = Options(
            name="qmt", prefix=PREFIX, api_url="", api_token="secret", recheck=recheck
        )
        desk = Desk(
            host, policy=Policy(), overrides=Overrides(home / "changed.json"),
            rights=self.rights, options=options,
        )  # fmt: skip
        ((pattern, handler, arguments),) = tunnel.routes(desk)
        self.tunnels = arguments["tunnels"]
        self._application = web.Application([(PREFIX + pattern, handler, arguments)])
        self._server = None
        self.port = 0
        self.start()

    def start(self):
        """Listen, at the same port as before."""
        self._server, self.port = _serve(self._application, self.port)

    async def stop(self):
        """Take no connections any more."""
        self._server.stop()
        await self._server.close_all_connections()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}{PREFIX}"

    async def close(self):
        await self.stop()
        self._hub.stop()
        await self._hub.close_all_connections()
        self.rights.close()


def _serve(application, port=0):
    server = HTTPServer(application)
    (listening,) = bind_sockets(port, "127.0.0.1")
    server.add_sockets([listening])
    return server, listening.getsockname()[1]


class Hosted:
    """A host as the service has it, from one that runs in the test's own loop."""

    def __init__(self, service):
        self._service = service
        self.peer_id = service.peer_id

    async def status(self):
        return self._service.status()


def by_tunnel(granted, settings, url, token="token-of-ann"):
    """A guest that knows the tunnel beside what its link says; not joined yet."""
    mesh = GuestMesh._empty(settings)
    way = HubTunnel(url, lambda: token, lambda: addresses.reach(settings.interfaces))
    mesh._finder.also_by(granted.invite.peer_id, way.source())
    return mesh


class RawClient:
    """A WebSocket of a client that keeps to no rules, byte by byte."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, service, token="token-of-ann", **headers):
        """The client, and the status and body that its request was answered with."""
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", service.port))
        reader, writer = await asyncio.open_connection(sock=narrow, limit=4096)
        sent = {
            "Host": "hub", "Upgrade": "websocket", "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **({"Authorization": f"token {token}"} if token else {}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }  # fmt: skip
        lines = [f"GET {PREFIX}tunnel HTTP/1.1", *(f"{k}: {v}" for k, v in sent.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, body = int(head.split()[1]), b""
        for line in head.splitlines():
            if line.lower().startswith("content-length:"):
                body = await reader.readexactly(int(line.partition(":")[2]))
        return cls(reader, writer), status, body.decode()

    def frame(self, opcode, data=b""):
        """One frame, whole and masked with nothing."""
        size = len(data)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size & 0xFFFF)
        if size > 0xFFFF:
            length = b"\xff" + struct.pack("!Q", size)
        return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + data

    async def send(self, opcode, data=b"", times=1):
        self.writer.write(self.frame(opcode, data) * times)
        await self.writer.drain()

    async def receive(self):
        """The next frame's opcode and data; None where the connection has ended."""
        try:
            first, size = await self.reader.readexactly(2)
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            return first & 0x0F, await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def end(self):
        """The code that the other side closes with; None where it just hangs up."""
        while (got := await self.receive()) is not None:
            if got[0] == 0x8:
                await self.send(0x8, got[1])
                return struct.unpack("!H", got[1][:2])[0] if got[1] else 1005
        return None

    async def close(self):
        """Hang up, whatever is still to be sent."""
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Proxy:
    """What stands between a guest and the service: passes bytes on, and can hang up on everybody."""

    def __init__(self, service):
        self._service = service
        self._writers = set()

    async def start(self, port=0):
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}{PREFIX}"

    async def _pass_on(self, reader, writer):
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._service.port)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, back}
        await asyncio.gather(_copy(reader, back), _copy(there, writer))
        self._writers -= {writer, back}

    async def stop(self):
        """Hang up on everybody, and be gone."""
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        while self._writers:
            await asyncio.sleep(0.01)


async def _copy(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
