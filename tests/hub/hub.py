"""A real JupyterHub on loopback: its proxy, its users' servers, and services beside it.

Users sign in with any password. Each has a home, a ``QMT_HOME`` and Jupyter's folders to
themselves below the test's own folder. All that is started ends with :meth:`Hub.stop`, and with the
test's process, however that ends (see ``keeper.py``).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import MODELS

HERE = Path(__file__).parent
# What takes a server long to load, and what only a browser needs.
LAB = ("jupyterlab", "jupyter_lsp", "jupyter_server_terminals", "notebook", "notebook_shim")
# An optional part of jsonschema that checks one format and takes every process a second to import.
SLOW = "rfc3987_syntax"
PROXY = HERE.parents[1] / ".hub-proxy/node_modules/.bin/configurable-http-proxy"
NEEDED = ("jupyterhub", "websocket", "jupyter_server", "ipykernel")

# What a process of a Hub sees of the test's own environment.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "OMP_WAIT_POLICY", "TZ")

# What no callable of a test's process can be: each user's server has folders of its own.
_CONFIGURATION = """
import functools, pickle
from pathlib import Path
from jupyterhub import utils
from jupyterhub.spawner import SimpleLocalProcessSpawner

# It looks for a server that starts at random moments, up to 5 s apart.
utils.exponential_backoff = functools.partial(utils.exponential_backoff, max_wait=0.2)

HOMES = Path({homes!r})


class OwnFolders(SimpleLocalProcessSpawner):
    def get_env(self):
        own = HOMES / self.user.name
        env = super().get_env()
        env["QMT_HOME"] = str(own / "qmt")
        for what in ("DATA", "RUNTIME"):
            env[f"JUPYTER_{{what}}_DIR"] = str(own / "jupyter" / what.lower())
        env["IPYTHONDIR"] = str(own / "ipython")
        return env


c = get_config()  # noqa
c.JupyterHub.spawner_class = OwnFolders
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 0}}  # no waiting for one before the next
c.merge(pickle.loads(Path({pickled!r}).read_bytes()))
"""

# ``--model slow:0.05``: the model "echo", which takes that many seconds for each word, and repeats
# what it is told as long as the request allows.
_SLOW_ECHO = """
from qmt_jupyter.providers.echo import Echo

def make(delay, options):
    return Echo(slots=options.slots, delay=float(delay), repeat=True)
"""


def missing() -> str:
    """Why there can be no Hub on this machine; empty where there can."""
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    if not sys.platform.startswith("linux"):
        return "the processes of a Hub are kept by means of Linux"
    if not PROXY.exists():
        return "there is no .hub-proxy (`make .hub-proxy/.made` puts it there)"
    return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RefusedError(AssertionError):
    """An answer of 400 or more; ``status`` and ``value`` (JSON, or text) say which."""

    def __init__(self, status: int, value: Any) -> None:
        super().__init__(f"{status}: {value}")
        self.status = status
        self.value = value


@dataclass(frozen=True)
class Answer:
    """What an address answered, whatever the status."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        try:
            return json.loads(self.body) if self.body else None
        except ValueError:
            return self.body.decode(errors="replace")


@dataclass
class Service:
    """A program beside the Hub that the Hub knows: an external service.

    ``command`` is the whole program where it is not ``python -m qmt_jupyter.hub``; ``environment``
    comes on top of what the Hub would give a service.
    """

    name: str = "qmt"
    arguments: Iterable[str] = ()
    command: Iterable[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    @property
    def url(self) -> str:
        """Where the Hub's proxy reaches it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def prefix(self) -> str:
        return f"/services/{self.name}/"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())


def ask(
    method: str,
    url: str,
    *,
    token: str | None = None,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> Answer:
    """One HTTP request; no redirect is followed, no status is an error. ``body`` becomes JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, dict(headers or {}), method=method)
    if data is not None and not asked.has_header("Content-type"):
        asked.add_header("Content-Type", "application/json")
    if token is not None:
        asked.add_header("Authorization", f"token {token}")
    try:
        with _direct.open(asked, timeout=timeout) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


class Kept:
    """A program under its keeper; what it writes goes to ``log``."""

    def __init__(self, command: Iterable[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as written:
            self._keeper = subprocess.Popen(
                [sys.executable, str(HERE / "keeper.py"), *command], env=dict(environment),
                cwd=log.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=written,
                start_new_session=True,
            )  # fmt: skip

    @property
    def runs(self) -> bool:
        return self._keeper.poll() is None

    def stop(self) -> list[str]:
        """End it; which processes it would have left behind."""
        left, _ = self._keeper.communicate(timeout=60)
        return left.decode().splitlines()

    def kill(self) -> None:
        """End the program at once, as when a machine goes away."""
        children = Path(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children")
        for pid in children.read_text(encoding="ascii").split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self.stop()

    def tail(self, characters: int = 4000) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-characters:]


class Server:
    """A user's notebook server, through the Hub's proxy."""

    def __init__(self, hub: Hub, user: str) -> None:
        self.user = user
        self.home = hub.homes / user
        self.token = hub.token_of(user)
        self.url = f"{hub.url}user/{urllib.parse.quote(user)}/"
        self._kernels: list[Any] = []

    def api(self, method: str, path: str, body: Any = None) -> Any:
        answer = ask(method, f"{self.url}api/{path}", token=self.token, body=body)
        if answer.status >= 400:
            raise RefusedError(answer.status, answer.value)
        return answer.value

    def kernel(self) -> Any:
        """A new kernel."""
        from tests.hub.kernel import Kernel

        made = self.api("POST", "kernels", {"name": "python3"})["id"]
        address = f"ws{self.url.removeprefix('http')}api/kernels/{made}/channels"
        made_by = [f"Authorization: token {self.token}"]
        interrupt = functools.partial(self.api, "POST", f"kernels/{made}/interrupt")
        self._kernels.append(Kernel(address, made_by, interrupt))
        return self._kernels[-1]

    def begin(self, code: str) -> Any:
        """Have ``code`` run in the server's first kernel, and go on here: a ``Cell``."""
        return (self._kernels[0] if self._kernels else self.kernel()).begin(code)

    def run(self, code: str, seconds: float = 60) -> str:
        """All that stands below a cell of ``code`` at its end; CellFailedError where it fails."""
        return str(self.begin(code).wait(seconds))

    def interrupt(self) -> None:
        """Stop what the first kernel runs, as by the square button."""
        self._kernels[0].interrupt()

    def close(self) -> None:
        for kernel in self._kernels:
            kernel.close()
        self._kernels.clear()


class Hub:
    """Runs from the start of the object, or of the ``with``, to :meth:`stop`.

    ``users`` and those of ``groups`` may sign in. ``services`` are started here as external
    services and have to be made known to the Hub by ``configure(c, hub)``, which gets the Hub's
    configuration and this object (``url``, ``services``); where there is none, they are made known
    as plain services. What ``configure`` puts into ``c`` has to be plain data; ``text`` is appended
    to ``jupyterhub_config.py`` as it is.
    """

    def __init__(
        self,
        root: Path,
        *,
        users: Iterable[str] = (),
        groups: Mapping[str, Iterable[str]] | None = None,
        services: Iterable[Service] = (),
        configure: Callable[[Any, Hub], Any] | None = None,
        text: str = "",
        lab: bool = False,
    ) -> None:
        self.root = root
        self.homes = root / "homes"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.api_url = f"http://127.0.0.1:{free_port()}/hub/api"
        self.services = {service.name: service for service in services}
        self.left_behind: list[str] = []
        self._token = secrets.token_hex(16)
        self._servers: dict[str, Server] = {}
        self._running: dict[str, Kept] = {}
        self._tokens: dict[str, str] = {}
        self._process: Kept | None = None
        self.homes.mkdir(parents=True)
        self._install(root / "site")
        groups = {name: list(members) for name, members in (groups or {}).items()}
        everybody = {*users, *(one for members in groups.values() for one in members)}
        self._write_configuration(sorted(everybody), groups, configure, text, lab)
        command = [sys.executable, "-m", "jupyterhub", "-f", str(root / "jupyterhub_config.py")]
        environment = self.environment(root / "hub")
        try:
            # The Hub waits a second for each that is not there when it starts.
            for name in self.services:
                self._start(name)
            self._process = Kept(command, environment, root / "hub.log")
            self._wait(lambda: self._answers(f"{self.url}hub/health"), self._process)
            for name in self.services:
                self._wait_for_service(name)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _install(self, site: Path) -> None:
        """What all processes of this Hub can import: the model, and less than there is."""
        information = site / "slow_echo-1.0.dist-info"
        information.mkdir(parents=True)
        (site / "slow_echo.py").write_text(_SLOW_ECHO, encoding="utf-8")
        (information / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: slow-echo\nVersion: 1.0\n"
        )
        (information / "entry_points.txt").write_text(
            "[qmt_jupyter.providers]\nslow = slow_echo:make\n"
        )
        (site / f"{SLOW}.py").write_text("raise ImportError('not in a test')")

    def _write_configuration(
        self,
        users: list[str],
        groups: dict[str, list[str]],
        configure: Callable[[Any, Hub], Any] | None,
        text: str,
        lab: bool,
    ) -> None:
        from traitlets.config import Config

        c = Config()
        hub_address = self.api_url.removesuffix("/hub/api")
        c.JupyterHub.bind_url = self.url
        c.JupyterHub.hub_bind_url = hub_address
        c.JupyterHub.db_url = f"sqlite:///{self.root / 'hub.sqlite'}"
        c.JupyterHub.cookie_secret_file = str(self.root / "cookie_secret")
        c.JupyterHub.authenticator_class = "dummy"
        c.JupyterHub.cleanup_servers = True
        c.JupyterHub.load_groups = {name: {"users": members} for name, members in groups.items()}
        c.JupyterHub.services = [{"name": "harness", "api_token": self._token}]
        c.JupyterHub.load_roles = [{"name": "admin", "services": ["harness"]}]
        c.Authenticator.allowed_users = set(users)
        c.ConfigurableHTTPProxy.command = [str(PROXY)]
        c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{free_port()}"
        c.ConfigurableHTTPProxy.pid_file = str(self.root / "proxy.pid")
        c.SimpleLocalProcessSpawner.home_dir_template = str(self.homes / "{username}")
        c.LocalProcessSpawner.interrupt_timeout = 2
        c.Spawner.args = ["--allow-root"]
        c.Spawner.environment = {
            "QMT_INTERFACES": "127.0.0.1",
            "QMT_DETECT": "off",
            "QMT_MODELS": str(MODELS),
            "JUPYTER_CONFIG_DIR": str(self.root / "jupyter"),
        }
        settings = {"ServerApp": {"jpserver_extensions": {} if lab else dict.fromkeys(LAB, False)}}
        (self.root / "jupyter").mkdir()
        (self.root / "jupyter/jupyter_server_config.json").write_text(json.dumps(settings))
        if not lab:
            c.Spawner.environment["JUPYTERHUB_SINGLEUSER_APP"] = (
                "jupyter_server.serverapp.ServerApp"
            )
        if configure is not None:
            configure(c, self)
        else:
            c.JupyterHub.services += [
                {"name": each.name, "url": each.url, "api_token": each.token}
                for each in self.services.values()
            ]
        pickled = self.root / "configuration.pickle"
        pickled.write_bytes(pickle.dumps(c))
        written = _CONFIGURATION.format(homes=str(self.homes), pickled=str(pickled)) + text
        (self.root / "jupyterhub_config.py").write_text(written, encoding="utf-8")

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """For a program with a home of its own, outside of the Hub's reach."""
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        home.mkdir(parents=True, exist_ok=True)
        beside = str(Path(sys.executable).parent)
        paths = [str(self.root / "site"), *filter(None, [passed_on.get("PYTHONPATH")])]
        passed_on["PYTHONPATH"] = os.pathsep.join(paths)
        passed_on["PATH"] = os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])
        ours = {
            "HOME": str(home),
            "QMT_HOME": str(home / "qmt"),
            "QMT_INTERFACES": "127.0.0.1",
            "QMT_DETECT": "off",
            "QMT_MODELS": str(MODELS),
            "PYTHONUNBUFFERED": "1",
        }
        return {**passed_on, **ours, **more}

    def _answers(self, url: str) -> bool:
        try:
            return ask("GET", url, timeout=5).status == 200
        except OSError:
            return False

    def _wait(
        self, condition: Callable[[], bool], process: Kept | None, seconds: float = 90
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or process is None or not process.runs:
                raise RuntimeError(f"It did not start:\n{process.tail()}\n{self.log[-4000:]}")
            time.sleep(0.05)

    def start_service(self, name: str) -> None:
        """Start an external service, and wait until it answers through the Hub's proxy."""
        self._start(name)
        self._wait_for_service(name)

    def _start(self, name: str) -> None:
        service = self.services[name]
        given = {
            "JUPYTERHUB_SERVICE_NAME": name,
            "JUPYTERHUB_SERVICE_PREFIX": service.prefix,
            "JUPYTERHUB_SERVICE_URL": service.url,
            "JUPYTERHUB_API_TOKEN": service.token,
            "JUPYTERHUB_API_URL": self.api_url,
            "JUPYTERHUB_BASE_URL": "/",
        }
        home = self.root / "services" / name
        program = service.command or [sys.executable, "-m", "qmt_jupyter.hub", *service.arguments]
        environment = self.environment(home, **given, **service.environment)
        self._running[name] = Kept(program, environment, home / "service.log")

    def _wait_for_service(self, name: str) -> None:
        """While its model is being loaded it says that it is well, and to everything else 503."""
        address = f"{self.url}services/{name}/"
        kept = self._running[name]
        self._wait(lambda: self._answers(f"{address}health"), kept)
        self._wait(lambda: ask("GET", f"{address}api/node", timeout=30).status != 503, kept)

    def stop_service(self, name: str) -> None:
        """End an external service as its machine does when it shuts down."""
        self.left_behind += self._running.pop(name).stop()

    def kill_service(self, name: str) -> None:
        """End an external service at once, as when its machine goes away."""
        self._running.pop(name).kill()

    def service_log(self, name: str) -> str:
        return (self.root / "services" / name / "service.log").read_text(encoding="utf-8")

    @property
    def log(self) -> str:
        path = self.root / "hub.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def api(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        """The Hub's own API, as its administrator; RefusedError where the answer is 400 or more."""
        answer = ask(method, f"{self.api_url}/{path}", token=token or self._token, body=body)
        if answer.status >= 400:
            raise RefusedError(answer.status, answer.value)
        return answer.value

    def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Anything behind the Hub's proxy, e.g. ``services/qmt/health``; see :func:`ask`."""
        return ask(method, f"{self.url}{path.lstrip('/')}", **options)

    def token_of(self, user: str) -> str:
        """An API token with all that ``user`` may do."""
        if user not in self._tokens:
            made = self.api("POST", f"users/{urllib.parse.quote(user)}/tokens", {"note": "test"})
            self._tokens[user] = made["token"]
        return self._tokens[user]

    def start_servers(self, *users: str) -> list[Server]:
        """Start several users' servers side by side, and wait for them all."""
        for user in users:
            if user not in self._servers:
                self.api("POST", f"users/{urllib.parse.quote(user)}/server")
        for user in users:
            if user not in self._servers:
                self._wait(lambda user=user: self._is_ready(user), self._process)
                self._servers[user] = Server(self, user)
        return [self._servers[user] for user in users]

    def start_server(self, user: str) -> Server:
        """The user's server, which runs."""
        return self.start_servers(user)[0]

    def _is_ready(self, user: str) -> bool:
        model = self.api("GET", f"users/{urllib.parse.quote(user)}")
        server = (model.get("servers") or {}).get("")
        if server is None:
            raise RuntimeError(f"{user}'s server did not start:\n{self.log[-4000:]}")
        return bool(server["ready"])

    def stop_server(self, user: str) -> None:
        self._servers.pop(user).close()
        self.api("DELETE", f"users/{urllib.parse.quote(user)}/server")
        self._wait(
            lambda: not self.api("GET", f"users/{urllib.parse.quote(user)}").get("servers"),
            self._process,
        )

    def add_to_group(self, user: str, group: str) -> None:
        self.api("POST", f"groups/{group}/users", {"users": [user]})

    def remove_from_group(self, user: str, group: str) -> None:
        self.api("DELETE", f"groups/{group}/users", {"users": [user]})

    def delete_user(self, user: str) -> None:
        """Delete a user on the Hub, whose server stops with that."""
        if user in self._servers:
            self._servers.pop(user).close()
        self._tokens.pop(user, None)
        self.api("DELETE", f"users/{urllib.parse.quote(user)}")

    def stop(self) -> None:
        """End all of it; ``left_behind`` says which processes had to be ended one by one."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        for name in list(self._running):
            self.stop_service(name)
        if self._process is not None:
            self.left_behind += self._process.stop()
