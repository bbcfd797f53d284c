"""Writes a service into ``jupyterhub_config.py``: itself, its scopes, roles, and the notebooks.

Imports nothing of JupyterHub: it fills in the configuration object that it is given.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from ..errors import OptionInvalid
from ..harmless import printable
from .person import ADMIN, LONGEST_NAME, METRICS, NODE, SERVICE_NAME

T = TypeVar("T")

HUB_URL_VARIABLE = "QMT_HUB_URL"
"""Where a notebook server finds the services: their base URLs, comma-separated."""
DEFAULT_URL = "http://127.0.0.1:10200"
DEFAULT_HUB_URL = "http://127.0.0.1:8000/"

SCOPES = {
    ADMIN: {"description": "See and limit everybody's use of the models that the Hub shares."},
    METRICS: {"description": "Read the metrics of the models that the Hub shares."},
    NODE: {"description": "Exchange with services that share models what users have used."},
}
# A server's token would otherwise have these alone (JupyterHub's role "server").
SERVER_SCOPES = ("users:activity!user", "access:servers!server")

# What the Hub passes on to no service by itself, and the service, its engine or its fetching needs.
_PASSED_ON = (
    "CUDA_", "GGML_", "HF_", "HIP_", "LD_LIBRARY_PATH", "NVIDIA_", "OMP_", "QMT_", "ROCR_",
    "SSL_CERT_", "XDG_DATA_HOME",
)  # fmt: skip
_PASSED_ON_WHOLE = {
    "HOME", "TMPDIR", "TZ", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY",
    "NO_PROXY", "LANG", "LC_ALL",
}  # fmt: skip
_LABEL = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_OF_GUESTS = {"QMT_INVITE", HUB_URL_VARIABLE}


def configure(
    c: Any,
    *,
    name: str = "qmt",
    model: str | Sequence[str] | None = None,
    upstream: str | Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    admins: Iterable[str] = (),
    config: str | Path | None = None,
    url: str = DEFAULT_URL,
    api_token: str | None = None,
    hub_url: str | None = None,
    metrics_token: str | None = None,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> None:
    """Add a service that shares ``model`` or ``upstream`` to the Hub's configuration ``c``.

    ``groups`` are those of the Hub whose users may use it (None: all users). ``admins`` see and
    limit everybody on its page: users, or ``group:NAME``. ``config`` is the file with the limits.
    ``url`` is where it listens for the Hub's proxy. Without ``api_token`` the Hub starts it;
    with one it is an external service, started by hand elsewhere with that token, and ``model``,
    ``upstream``, ``config``, ``environment`` and ``arguments`` are given there. ``hub_url`` is
    where notebook servers reach the Hub's proxy (default: ``c.JupyterHub.bind_url`` on this
    machine; with ``subdomain_host`` the service's own domain). ``metrics_token``: a token for who
    collects metrics. ``environment`` adds to what the service sees, ``arguments`` are flags of
    ``python -m qmt_jupyter.hub``.

    Call it once for each service, after what else the file says of ``c.JupyterHub.services``,
    ``load_roles`` and ``custom_scopes`` and of ``environment`` and ``server_token_scopes`` of
    spawners. Raises :class:`~qmt_jupyter.errors.OptionInvalid`.
    """
    external = api_token is not None
    _require_name(name)
    _require_url(url, "url")
    # A string would be taken for its letters.
    for what, names in (("groups", groups), ("admins", admins)):
        if isinstance(names, str):
            raise OptionInvalid(
                f"{what} has to be a list of names.",
                next_step=f"Write {what}=['{printable(names, 40)}'].",
            )
    users_of_groups = None if groups is None else _names("groups", groups)
    admin_users, admin_groups = _admins(admins)
    if api_token is not None:
        _require_token(api_token, "api_token")
        if model or upstream or config or arguments or environment:
            raise OptionInvalid(
                "An external service (one with api_token) is told what it shares where it runs.",
                next_step="Give model, upstream, config, environment and arguments to "
                "python -m qmt_jupyter.hub there.",
            )
    if metrics_token is not None:
        _require_token(metrics_token, "metrics_token")
    hub = c.JupyterHub
    if any(each.get("name") == name for each in _list(hub, "services")):
        raise OptionInvalid(
            f"The Hub has a service called {name} already.",
            next_step="Give each a name of its own.",
        )
    place = _hub_url(hub, name, hub_url)
    given = [*_models(model, "--model"), *_models(upstream, "--upstream")]
    # Not resolved: a link may lead to another file tomorrow.
    given += ["--config", os.path.abspath(config)] if config is not None else []  # noqa: PTH100
    given += [str(each) for each in arguments]
    service: dict[str, Any] = {
        "name": name,
        "url": url,
        # So that the page knows an administrator, and the Hub asks nobody whether to trust it.
        "oauth_client_allowed_scopes": [ADMIN],
        "oauth_no_confirm": True,
    }
    if external:
        service["api_token"] = api_token
    else:
        service["command"] = [sys.executable, "-m", "qmt_jupyter.hub", *given]
        service["environment"] = {**_passed_on(given), **(environment or {})}
    _append(hub, "services", service)
    _merge(hub, "custom_scopes", SCOPES)
    _give_roles(hub, name, users_of_groups, admin_users, admin_groups)
    if metrics_token is not None:
        _append(hub, "services", {"name": f"{name}-metrics", "api_token": metrics_token})
        _append(
            hub,
            "load_roles",
            _role(f"{name}-metrics", "Read metrics", [METRICS], services=[f"{name}-metrics"]),
        )
    _equip_notebooks(c, name, place)


def _give_roles(
    hub: Any,
    name: str,
    groups: list[str] | None,
    admin_users: list[str],
    admin_groups: list[str],
) -> None:
    access = f"access:services!service={name}"
    _append(
        hub,
        "load_roles",
        _role(f"{name}-service", "Tell the other services of this kind", [NODE], services=[name]),
    )
    if groups is None:
        # There is no other way to say "all users".
        everybody = next((r for r in _list(hub, "load_roles") if r.get("name") == "user"), None)
        if everybody is None:
            _append(hub, "load_roles", {"name": "user", "scopes": ["self", access]})
        else:
            everybody["scopes"] = [*everybody.get("scopes", ["self"]), access]
    else:
        _append(
            hub, "load_roles", _role(f"{name}-users", "Use the models", [access], groups=groups)
        )
    if admin_users or admin_groups:
        _append(
            hub,
            "load_roles",
            _role(
                f"{name}-admins",
                "See and limit everybody's use of the models",
                [ADMIN, access],
                users=admin_users,
                groups=admin_groups,
            ),
        )


def _equip_notebooks(c: Any, name: str, hub_url: str) -> None:
    """Have notebook servers know where the service is, and their tokens open it."""
    address = f"{hub_url}services/{name}/"
    scope = f"access:services!service={name}"
    sections = [c.Spawner]
    # What a spawner of its own class says stands in place of what c.Spawner says.
    sections += [c[key] for key in sorted(c) if key.endswith("Spawner") and key != "Spawner"]
    for section in sections:
        general = section is c.Spawner
        if general or "environment" in section:
            none: dict[str, Any] = {}
            given = _held(section, "environment", none).get(HUB_URL_VARIABLE)
            former = [given] if isinstance(given, str) and given else []
            _merge(section, "environment", {HUB_URL_VARIABLE: ",".join([*former, address])})
        if general or "server_token_scopes" in section:
            scopes: Any = _held(section, "server_token_scopes", [])
            section.server_token_scopes = _with_scope(scopes, scope)


def _with_scope(scopes: Any, scope: str) -> Any:
    """Scopes of a server's token with one more; a function of the spawner stays one."""
    if callable(scopes):
        asked = cast("Callable[[Any], Any]", scopes)

        async def more(spawner: Any) -> list[str]:
            given = asked(spawner)
            if hasattr(given, "__await__"):
                given = await given
            return [*(given or SERVER_SCOPES), scope]

        return more
    return [*(scopes or SERVER_SCOPES), scope]


def _passed_on(arguments: Sequence[str]) -> dict[str, str]:
    keys = {each.partition(":")[2] for each in arguments if "env:" in each}
    return {
        variable: value
        for variable, value in os.environ.items()
        if variable in keys
        or (
            (variable.startswith(_PASSED_ON) or variable in _PASSED_ON_WHOLE)
            and variable not in _OF_GUESTS
            # Tokens of other services and of Prometheus, as the documentation calls them.
            and not re.fullmatch(r"QMT_\w*TOKEN", variable)
        )
    }


# The configuration object ----------------------------------------------------------------------


def _held(section: Any, key: str, empty: T) -> T:
    """What the file has set so far, or only added to a default that is empty."""
    if key not in section:
        return empty
    value = section[key]
    if type(value).__name__ == "LazyConfigValue":
        value = value.get_value(empty)
    return cast("T", value)


def _list(section: Any, key: str) -> list[dict[str, Any]]:
    none: list[dict[str, Any]] = []
    return _held(section, key, none)


def _append(section: Any, key: str, value: dict[str, Any]) -> None:
    section[key] = [*_list(section, key), value]


def _merge(section: Any, key: str, values: Mapping[str, Any]) -> None:
    none: dict[str, Any] = {}
    section[key] = {**_held(section, key, none), **values}


def _role(name: str, description: str, scopes: list[str], **holders: list[str]) -> dict[str, Any]:
    held = {kind: names for kind, names in holders.items() if names}
    return {"name": name, "description": description, "scopes": scopes, **held}


# What was given ----------------------------------------------------------------------------------


def _require_name(name: str) -> None:
    if not isinstance(name, str) or not SERVICE_NAME.fullmatch(name):
        raise OptionInvalid(
            f"{printable(str(name), 60)!r} is no name for a service.",
            next_step="Use small letters, digits and dashes, such as qmt.",
        )


def _require_url(url: str, called: str) -> None:
    try:
        split = urlsplit(url)
        fits = split.scheme in ("http", "https") and bool(split.hostname) and split.port != 0
    except (ValueError, AttributeError, TypeError):
        fits = False
    if not fits or "," in url:
        raise OptionInvalid(
            f"{called} is no address.", next_step="Write it like http://127.0.0.1:10200."
        )


def _require_token(token: str, called: str) -> None:
    if not isinstance(token, str) or len(token) < 8 or not token.isprintable():
        raise OptionInvalid(
            f"{called} is no token: it has to have 8 characters at least.",
            next_step="Make one with: openssl rand -hex 32.",
        )


def _names(called: str, names: Iterable[str]) -> list[str]:
    listed = list(names)
    if not listed or not all(isinstance(n, str) and 0 < len(n) <= LONGEST_NAME for n in listed):
        raise OptionInvalid(
            f"{called} has to be a list of names.",
            next_step="Leave it out where it is for all users.",
        )
    return list(dict.fromkeys(listed))


def _admins(admins: Iterable[str]) -> tuple[list[str], list[str]]:
    listed = list(admins)
    if not listed:
        return [], []
    names = _names("admins", listed)
    groups = [each.removeprefix("group:") for each in names if each.startswith("group:")]
    if "" in groups:
        raise OptionInvalid("admins has a group without a name.", next_step="Write group:NAME.")
    return [each for each in names if not each.startswith("group:")], groups


def _models(given: str | Sequence[str] | None, flag: str) -> list[str]:
    listed = [given] if isinstance(given, str) else list(given or ())
    return [word for each in listed for word in (flag, str(each))]


def _hub_url(hub: Any, name: str, given: str | None) -> str:
    """Where notebook servers reach the proxy; ``bind_url`` may say to listen everywhere."""
    if given is not None:
        _require_url(given, "hub_url")
        return given if given.endswith("/") else f"{given}/"
    scheme = "https" if _held(hub, "ssl_cert", "") else "http"
    host, port, path = _held(hub, "ip", ""), _held(hub, "port", 8000), _held(hub, "base_url", "/")
    if bound := _held(hub, "bind_url", ""):
        split = urlsplit(bound)
        scheme, host, path = split.scheme or scheme, split.hostname or "", split.path or path
        port = split.port or (443 if scheme == "https" else 80)
    if host in ("", "0.0.0.0", "::", "*"):  # noqa: S104  (compared, not bound)
        host = "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    shown = "" if (scheme, port) in (("http", 80), ("https", 443)) else f":{port}"
    inner = path.strip("/")
    origin = _own_origin(hub, name) or f"{scheme}://{host}{shown}"
    return f"{origin}/{inner}/" if inner else f"{origin}/"


def _own_origin(hub: Any, name: str) -> str:
    """Where each user and service has a domain, the service's: by no other leads the proxy there.

    Empty where they have none. Raises OptionInvalid where the Hub's way to name it is not known.
    """
    if not (public := _held(hub, "subdomain_host", "")):
        return ""
    _require_url(public, "subdomain_host")
    split = urlsplit(public)
    hook: Any = _held(hub, "subdomain_hook", "idna")
    if callable(hook):
        domain = hook(name, split.hostname, kind="service")
    elif hook == "legacy":
        domain = f"services.{split.hostname}"
    elif _LABEL.fullmatch(name):
        domain = f"{name}--service.{split.hostname}"
    else:
        raise OptionInvalid(
            f"What domain the Hub gives the service {name} is not known.",
            next_step="Give hub_url, or a name of small letters, digits and single dashes.",
        )
    return f"{split.scheme}://{domain}{f':{split.port}' if split.port else ''}"
