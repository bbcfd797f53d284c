"""``metrics``: what Prometheus reads, for a token that may."""

from __future__ import annotations

from typing import Any

from tornado import web

from .desk import Desk
from .metrics import CONTENT_TYPE, exposition
from .person import ADMIN, METRICS
from .requests import JsonHandler


def routes(desk: Desk) -> list[tuple[str, type[web.RequestHandler], dict[str, Any]]]:
    """What this part answers."""
    return [(r"metrics", MetricsHandler, {"desk": desk})]


class MetricsHandler(JsonHandler):
    """Answers a scrape. Whoever may use the models learns nothing of others' by that."""

    async def get(self) -> None:
        """All metrics, to who may read them or administers the service."""
        self.require(await self.person(), METRICS, ADMIN)
        report = {**await self.desk.host.metrics(), "peers": self.desk.peers.report()}
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(exposition(report))
