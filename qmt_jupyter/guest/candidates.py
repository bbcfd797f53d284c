"""Who may be asked for a model, by what the links to the hosts know now."""

from __future__ import annotations

from collections.abc import Iterable

from ..wire import messages
from .link import HostLink
from .routing import Candidate, default_model


def candidates(
    links: Iterable[HostLink], model: object, purpose: str, now: float
) -> list[Candidate[HostLink]]:
    """The hosts that offer ``model``, in the order they were joined.

    None asks for the default one, or else what a host has. A host whose model has a label before
    that name comes after those that have the name itself. ``purpose`` is ``chats`` or ``embeds``.
    """
    joined = list(links)
    # Asking the transport costs time, and one alone is not compared.
    several = len(joined) > 1
    connected = [not several or link.is_connected for link in joined]
    wanted = model
    if model is None:
        named = ([offer.name for offer in _offers_for(link, purpose)] for link in joined)
        wanted = default_model(zip(connected, named, strict=True))
    offering = []
    for order, link in enumerate(joined):
        offers = _offers_for(link, purpose)
        offer = next((each for each in offers if each.name == wanted), None)
        if offer is None and model is not None:
            # A bare name will do where one model of a host has it; the host knows its labels.
            labelled = [each for each in offers if each.name.endswith(f"/{model}")]
            offer = labelled[0] if len(labelled) == 1 else None
        if offer is None and model is None:
            # One that tells of no model says itself why not.
            unknown = messages.ModelOffer("") if purpose == "chats" else None
            offer = next(iter(offers), unknown)
        if offer is not None:
            offering.append((order, link, offer))
    return [
        Candidate(
            link,
            offer.name,
            order,
            preferred=offer.name == wanted,
            connected=connected[order],
            paused=link.load.is_paused(now),
            load=link.load.load(offer.name),
            rtt_ms=link.rtt_ms if len(offering) > 1 else None,
            context=offer.context,
        )
        for order, link, offer in offering
    ]


def asked(
    body: messages.JsonObject, chosen: Candidate[HostLink], purpose: str
) -> messages.JsonObject:
    """The request as it goes to the host. Which is its own first model, that one knows best."""
    offers = _offers_for(chosen.host, purpose)
    first = offers[0].name if offers else ""
    if body.get("model") is not None or chosen.model == first:
        return body
    return {**body, "model": chosen.model}


def _offers_for(link: HostLink, purpose: str) -> list[messages.ModelOffer]:
    """What a host offers that chats, or that embeds."""
    return [offer for offer in link.models if getattr(offer, purpose)]
