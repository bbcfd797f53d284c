"""Who asks: what the Hub said about a token, and what that lets its holder do. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

ADMIN = "custom:qmt:admin"
"""The scope of who sees every user of the service, and may pause and limit them."""
METRICS = "custom:qmt:metrics"
"""The scope of who reads the service's metrics."""
NODE = "custom:qmt:node"
"""The scope by which services of one Hub tell each other what their users have used."""

SERVICE_NAME = re.compile(r"[a-z][a-z0-9._-]{0,60}[a-z0-9]")
"""Less than JupyterHub lets a service be called: it is part of addresses and of roles' names."""
LONGEST_NAME = 255
"""The Hub's own limit for a user's name, in characters."""


@dataclass(frozen=True)
class Person:
    """Who a token belongs to, as the Hub says it. A service has no groups."""

    name: str
    groups: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    admin: bool = False
    is_service: bool = False

    def may_access(self, service: str) -> bool:
        """Whether the token opens the Hub's service of that name."""
        return bool({"access:services", f"access:services!service={service}"} & self.scopes)


def read_person(model: Any) -> Person:
    """The person in an answer of ``GET /hub/api/user``. ValueError for anything else."""
    if not isinstance(model, dict):
        raise ValueError("not an object")
    name, kind = model.get("name"), model.get("kind")
    if kind not in ("user", "service"):
        raise ValueError("neither a user nor a service")
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        raise ValueError("no name")
    if "scopes" not in model:  # which a Hub always says; nobody loses a right by an answer without
        raise ValueError("no scopes")
    # Half a character, which JSON can hold, could be written down nowhere.
    name.encode("utf-8")
    scopes = _texts(model.get("scopes"))
    groups = _texts(model.get("groups")) if kind == "user" else frozenset()
    return Person(name, groups, scopes, ADMIN in scopes, kind == "service")


def _texts(value: Any) -> frozenset[str]:
    if value is None:
        return frozenset()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("not a list of names")
    return frozenset(value)
