"""Seats at the services of a JupyterHub: had, renewed, lost and given up, over real HTTP and QUIC."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from contextlib import asynccontextmanager

import anyio
import pytest
from tornado.httpclient import HTTPClientError
from tornado.web import RequestHandler

from qmt_jupyter.errors import HostNotFound, HubNotFound, HubRefused, NotJoined
from qmt_jupyter.guest.hub import keeping, services, tunnel
from qmt_jupyter.guest.hub.services import Service
from qmt_jupyter.guest.hub.tunnel import HubTunnel
from qmt_jupyter.guest.mesh import GuestMesh
from qmt_jupyter.identity.keys import Identity
from qmt_jupyter.mesh.endpoint import Endpoint
from qmt_jupyter.mesh.locate import Attempt
from qmt_jupyter.providers.echo import Echo
from tests.mesh.conftest import REACH, bare, grant, question, texts, until
from tests.mesh.hub_service import TOKEN, listening, serving

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", TOKEN)


@pytest.fixture
def guest(person):
    return person("guest")


@asynccontextmanager
async def joined(guest, *urls, **options):
    mesh = await GuestMesh.join_all(
        [], guest.settings, services=[Service(url) for url in urls], **options
    )
    try:
        yield mesh
    finally:
        await mesh.close()


@asynccontextmanager
async def service(person, **known):
    host = await person("host").host(Echo(slots=4))
    try:
        async with serving(host, **known) as scripted:
            yield scripted
    finally:
        await scripted.host.close()


async def nowhere(link, deadline):
    raise HostNotFound("It is nowhere.")


class Soon:
    def pause(self):
        return 0.05

    def reset(self):
        pass


def answers(status, body=b"", **headers):
    """Misbehaves by answering so."""

    def misbehave(handler):
        handler.set_status(status)
        for name, value in headers.items():
            handler.set_header(name.replace("_", "-"), value)
        handler.write(body)

    return misbehave


async def test_a_seat_is_joined_without_a_link_and_answers(person, guest):
    async with service(person) as scripted, joined(guest, scripted.url) as mesh:
        assert "".join(await texts(mesh)) == "one two three"
        (status,) = mesh.status()
        assert status["seat"] == {"service": scripted.url, "user": "alice"}
        assert (status["connected"], status["problem"]) == (True, None)
        assert scripted.asked == ["POST"]
        assert list(scripted.invites) == [guest.identity().peer_id]


async def test_the_token_is_shown_nowhere(person, guest, caplog):
    caplog.set_level(logging.DEBUG)
    async with service(person, renew_s=1) as scripted, joined(guest, scripted.url) as mesh:
        await until(lambda: len(scripted.asked) > 1)
        link = scripted.invites[guest.identity().peer_id].url[len("qmt://mesh/join/") :][:40]
        seats = mesh.seats
        shown = [mesh.status(), mesh, seats, scripted.service, *vars(seats).values()]
        shown += [vars(each) for each in seats._seats.values()]
        shown.append(await scripted.service.seat(guest.identity().peer_id))
        echoed = json.dumps({"code": "hub-refused", "sentence": f"Not {TOKEN}.", "user": TOKEN})
        for status in (500, 403):
            scripted.misbehave = answers(status, echoed.encode())
            with pytest.raises((HubNotFound, HubRefused)) as raised:
                await scripted.service.seat("x")
            shown += [raised.value, vars(raised.value)]
        shown.append(caplog.text)
    for each in map(repr, shown):
        assert TOKEN not in each
        assert link not in each
    assert raised.value.__context__ is None or TOKEN not in repr(raised.value.__context__)


async def test_a_seat_is_renewed_and_its_connection_goes_on(person, guest):
    async with service(person, renew_s=1) as scripted, joined(guest, scripted.url) as mesh:
        (link,) = mesh.links
        connection = link._live.connection
        await until(lambda: scripted.asked == ["POST"] * 3)
        assert mesh.links == (link,)
        assert link._live.connection is connection
        assert link.is_connected


async def test_each_renewal_comes_at_a_time_of_its_own(person, guest):
    async with service(person) as scripted, joined(guest, scripted.url) as mesh:
        (seat,) = mesh.seats._seats.values()
        dues = set()
        for _ in range(8):
            await seat._renew()
            dues.add(round(seat._due - time.monotonic()))
        assert len(dues) > 2
        assert all(239 <= due <= 300 for due in dues)


async def test_a_host_that_begins_anew_elsewhere_is_found_through_the_service(person, guest):
    async with service(person) as scripted, joined(guest, scripted.url) as mesh:
        await scripted.host.close()
        (guest.settings.guest_dir / "places.json").unlink(missing_ok=True)
        scripted.host = await person("host").host(Echo(slots=4))
        await until(lambda: mesh.links[0].is_connected, 20)
        assert "".join(await texts(mesh)) == "one two three"
        assert scripted.asked.count("POST") > 1


async def test_a_seat_that_was_ended_is_asked_for_anew(person, guest):
    async with service(person) as scripted, joined(guest, scripted.url) as mesh:
        (link,) = mesh.links
        await scripted.end_seat(guest.identity().peer_id)
        await until(lambda: len(scripted.invites) == 1)
        await until(lambda: link.is_connected)
        assert link.over is None
        assert "".join(await texts(mesh)) == "one two three"


async def test_a_seat_that_has_run_out_is_asked_for_anew(person, guest):
    async with service(person, lifetime=2) as scripted, joined(guest, scripted.url) as mesh:
        (link,) = mesh.links
        first = scripted.invites[guest.identity().peer_id]
        scripted.lifetime = 900
        await until(lambda: len(scripted.asked) > 1)
        await until(lambda: link.is_connected)
        assert link.status()["expires_at"] > first.invite.expires_at
        assert "".join(await texts(mesh)) == "one two three"


async def test_a_no_ends_what_runs_and_is_the_last_word(person, guest):
    said = "You are\x1b[2J not in\u202e the group course-a."
    async with service(person, renew_s=1) as scripted, joined(guest, scripted.url) as mesh:
        (link,) = mesh.links
        scripted.host.providers[0]._delay = 0.05
        scripted.host.providers[0]._repeat = True
        answer = mesh.answer(question(max_tokens=100_000))
        with anyio.fail_after(10):
            await anext(answer)
            scripted.refused["alice"] = said
            with pytest.raises(HubRefused, match="not in the group course-a"):
                async for _ in answer:
                    pass
        assert isinstance(link.over, HubRefused)
        assert link.over.sentence == "You are [2J not in the group course-a."
        assert link.over.next_step == HubRefused.default_next_step
        (status,) = mesh.status()
        assert status["problem"] == link.over.sentence
        asked = len(scripted.asked)
        for _ in range(2):
            with pytest.raises(HubRefused):
                await texts(mesh)
        await mesh.refresh()
        assert len(scripted.asked) == asked
        assert not link.is_returning


async def test_after_a_revocation_the_service_says_why(person, guest):
    async with service(person) as scripted, joined(guest, scripted.url) as mesh:
        (link,) = mesh.links
        scripted.refused["alice"] = "You were removed."
        await scripted.end_seat(guest.identity().peer_id)
        await until(lambda: isinstance(link.over, HubRefused))
        assert mesh.status()[0]["problem"] == "You were removed."


async def test_a_service_that_does_not_answer_takes_nothing_away(person, guest, monkeypatch):
    monkeypatch.setattr(keeping, "_LONGEST_PAUSE", 0.5)
    async with service(person, renew_s=1) as scripted, joined(guest, scripted.url) as mesh:
        (link,) = mesh.links
        scripted.misbehave = answers(503, b'{"code": "hub-not-found", "sentence": "Away."}')
        asked = len(scripted.asked)
        await until(lambda: len(scripted.asked) > asked + 1)
        assert link.is_connected
        assert "".join(await texts(mesh)) == "one two three"
        scripted.misbehave = None
        (seat,) = mesh.seats._seats.values()
        await until(lambda: seat.problem is None)
        assert mesh.links == (link,)


async def test_after_a_return_by_the_old_link_the_seat_is_renewed_soon(person, guest, monkeypatch):
    monkeypatch.setattr(keeping, "_SOON", 0.5)
    async with service(person) as scripted, joined(guest, scripted.url) as mesh:
        (link,) = mesh.links
        scripted.misbehave = answers(503, b"{}")
        link._live.connection.close()
        await until(lambda: not link.is_connected)
        await until(lambda: link.is_connected)
        scripted.misbehave = None
        (seat,) = mesh.seats._seats.values()
        await until(lambda: seat._due > time.monotonic() + 200)


async def test_a_service_that_is_starting_is_waited_for(person, guest):
    async with service(person) as scripted:
        scripted.misbehave = answers(503, b"{}", Retry_After="0.2")

        async def start():
            await until(lambda: len(scripted.asked) == 3)
            scripted.misbehave = None

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            async with joined(guest, scripted.url) as mesh:
                assert mesh.links[0].is_connected


BAD_ANSWERS = {
    "nothing": (answers(200), "gave something that is no invite"),
    "no JSON": (answers(200, b"<html>"), "gave something that is no invite"),
    "a list": (answers(200, b"[1]"), "gave something that is no invite"),
    "deep": (answers(200, b"[" * 15000), "gave something that is no invite"),
    "no text": (answers(200, b'{"link": 7}'), "gave something that is no invite"),
    "another link": (answers(200, b'{"link": "https://x.example/"}'), "is no invite"),
    "large": (answers(200, b"x" * 100_000), "does not answer"),
    "many headers": (answers(200, X="x" * 20_000), "its answer is too large"),
    "not found": (answers(404, b"<html>No such service</html>"), r"gives no seat now \(HTTP 404\)"),
    "a no of somebody between": (answers(403, b"<html>Forbidden</html>"), r"\(HTTP 403\)"),
    "a sentence": (answers(500, b'{"sentence": "a\\nb\\u001b"}'), r"gives no seat now \(a b\)"),
    "no sentence": (answers(500, b'{"sentence": [1]}'), r"\(HTTP 500\)"),
}


@pytest.mark.parametrize("bad", BAD_ANSWERS)
async def test_what_a_service_says_is_not_taken_for_more_than_it_is(person, guest, bad):
    misbehave, sentence = BAD_ANSWERS[bad]
    async with service(person) as scripted:
        scripted.misbehave = misbehave
        with pytest.raises(HubNotFound, match=sentence):
            async with joined(guest, scripted.url):
                pass


async def test_nonsense_beside_a_good_link_does_no_harm(person, guest):
    async with service(person) as scripted:
        good = await grant(scripted.host)
        for renew in ("1e999", "-5", '"x"', "true", "null", "[1]", "1e-9"):
            body = f'{{"link": "{good.url}", "user": {{"a": 1}}, "renew_s": {renew}}}'
            scripted.misbehave = answers(200, body.encode())
            granted = await scripted.service.seat("guest")
            assert services._SHORTEST_RENEW_S <= granted.renew_s <= services._LONGEST_RENEW_S
            assert granted.user == ""


async def test_a_service_that_drips_or_sleeps_is_given_up_on(person, guest, monkeypatch):
    monkeypatch.setattr(services, "ANSWER_WITHIN", 0.3)

    async def drip(handler):
        for _ in range(100):
            handler.write("x")
            with contextlib.suppress(Exception):
                await handler.flush()
            await asyncio.sleep(0.05)

    async with service(person) as scripted:
        for misbehave in (drip, lambda _: asyncio.sleep(2)):
            scripted.misbehave = misbehave
            with pytest.raises(HubNotFound, match="does not answer"):
                await scripted.service.seat("guest")


async def test_the_token_follows_no_redirect(person, guest):
    seen = []

    class Elsewhere(RequestHandler):
        def prepare(self):
            seen.append(self.request.headers.get("Authorization"))
            self.finish()

    async with service(person) as scripted, listening((r"/.*", Elsewhere, {})) as elsewhere:
        for status in (301, 302, 303, 307, 308):
            scripted.misbehave = answers(status, Location=f"{elsewhere}/api/seat")
            with pytest.raises(HubNotFound, match=f"HTTP {status}"):
                await scripted.service.seat("guest")
    assert seen == []


async def test_the_token_follows_no_redirect_of_the_tunnel_either():
    seen = []

    class Elsewhere(RequestHandler):
        def prepare(self):
            seen.append(self.request.headers.get("Authorization"))
            self.finish()

    class Redirecting(RequestHandler):
        def get(self):
            seen.append("asked")
            self.redirect(f"{elsewhere}/tunnel", status=302)

    async with (
        listening((r"/.*", Elsewhere, {})) as elsewhere,
        listening((r"/x/tunnel", Redirecting, {})) as origin,
    ):
        way = await tunnel._Tunnel.open(f"ws{origin[4:]}/x/tunnel", lambda: TOKEN, REACH)
        with pytest.raises(HTTPClientError), anyio.fail_after(5):
            await way._connect()
        await way.close()
    assert seen == ["asked"]


async def test_of_a_giant_refusal_of_the_tunnel_little_is_kept():
    class Giant(RequestHandler):
        async def get(self):
            self.set_status(403)
            for _ in range(64):
                self.write(bytes(64 * 1024))
                await self.flush()

    async with listening((r"/x/tunnel", Giant, {})) as origin:
        way = await tunnel._Tunnel.open(f"ws{origin[4:]}/x/tunnel", lambda: TOKEN, REACH)
        with pytest.raises(HTTPClientError) as raised, anyio.fail_after(10):
            await way._connect()
        await way.close()
    assert not raised.value.response.body
    assert len(way._refusal) == 16 * 1024
    assert tunnel._outcome(raised.value, way._refusal) == ("refused (HTTP 403)", True)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("http://127.0.0.1:9/x/", "connection refused"),
        ("http://no-such-service.invalid/x/", "name"),
        ("https://127.0.0.1:{port}/x/", "ssl"),
    ],
)
async def test_why_the_tunnel_cannot_be_opened_is_said_as_it_is(base, said):
    async def plain(_, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        attempt = Attempt("tunnel")
        url = base.format(port=server.sockets[0].getsockname()[1])
        search = HubTunnel(url, lambda: TOKEN, lambda: REACH)._search(attempt)
        with anyio.move_on_after(1.0):
            await anext(search)
        await search.aclose()
    assert attempt.outcome.startswith("the service cannot be reached (")
    assert said in attempt.outcome.lower()


async def test_a_search_by_the_tunnel_that_ends_early_leaves_no_socket(monkeypatch):
    opened = []
    monkeypatch.setattr(
        tunnel._Tunnel,
        "connection_made",
        lambda self, way: opened.append(way) or setattr(self, "_udp", way),
    )
    monkeypatch.setattr(tunnel._Tunnel, "datagram_received", lambda *_: None)
    with anyio.move_on_after(0.05):
        await tunnel._Tunnel.open("ws://127.0.0.1:9/tunnel", lambda: TOKEN, REACH)
    assert [way.is_closing() for way in opened] == [True]


async def test_an_endpoint_whose_closing_is_interrupted_closes_what_carries_it():
    class Carrier:
        at, closed = "127.0.0.1:9", False

        def keep(self):
            pass

        async def close(self):
            await asyncio.sleep(0.1)
            self.closed = True

    endpoint, carrier = await Endpoint.bind(Identity.fresh().seed, REACH), Carrier()
    endpoint.carried_by(carrier)
    closing = asyncio.ensure_future(endpoint.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert carrier.closed
    assert endpoint._endpoint is None


async def test_no_proxy_of_the_environment_gets_the_token(person, guest, monkeypatch):
    seen = []

    class Proxy(RequestHandler):
        def prepare(self):
            seen.append(self.request.uri)
            self.finish()

    async with listening((r".*", Proxy, {})) as proxy, service(person) as scripted:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy)
        async with joined(guest, scripted.url):
            pass
    assert seen == []


async def test_another_host_at_the_same_service_is_a_new_one(person, guest):
    async with service(person, renew_s=1) as scripted, joined(guest, scripted.url) as mesh:
        (former,) = mesh.links
        first, scripted.host = scripted.host, await person("another").host(Echo(slots=4))
        scripted.invites.clear()
        await until(lambda: mesh.links[0].host_id == scripted.host.peer_id)
        await until(lambda: mesh.links[0].is_connected)
        await until(lambda: former.is_concluded)
        assert "".join(await texts(mesh)) == "one two three"
        assert len(mesh.links) == 1
        assert first.status()["guests"] == 0
        await first.close()


async def test_a_service_of_many_hosts_is_not_asked_ever_faster(person, guest):
    """Replicas behind one address, each with an identity of its own."""
    other = await person("other").host(Echo(slots=4))
    async with service(person, renew_s=1) as scripted:
        hosts, usual = [scripted.host, other], scripted.seat

        async def seat(user, guest):
            scripted.host = hosts[scripted.asked.count("POST") % 2]
            return await usual(user, guest)

        scripted.seat = seat
        async with joined(guest, scripted.url) as mesh:
            await until(lambda: scripted.asked.count("POST") > 1)
            await asyncio.sleep(1)
            assert scripted.asked.count("POST") <= 4
            scripted.seat = usual
            await until(lambda: mesh.links[0].host_id == scripted.host.peer_id)
            await until(lambda: mesh.links[0].is_connected)
            assert "".join(await texts(mesh)) == "one two three"
            assert len(mesh.links) == 1
        scripted.host = hosts[0]
    await other.close()


async def test_of_several_services_one_is_enough(person, guest):
    nobody = "http://127.0.0.1:9/services/none/"
    async with service(person) as scripted, joined(guest, nobody, scripted.url) as mesh:
        assert len(mesh.links) == 1
        assert "".join(await texts(mesh)) == "one two three"


async def test_a_service_that_is_late_comes_in_by_and_by(person, guest, monkeypatch):
    monkeypatch.setattr(keeping, "_LONGEST_PAUSE", 0.5)
    async with service(person) as scripted:
        other = await person("other").host(Echo(slots=2))
        async with serving(other) as late:
            late.misbehave = answers(502, b"<html>Bad gateway</html>")
            async with joined(guest, late.url, scripted.url) as mesh:
                assert [link.host_id for link in mesh.links] == [scripted.host.peer_id]
                late.misbehave = None
                await until(lambda: len(mesh.links) == 2 and mesh.links[1].is_connected)
                assert mesh.links[1].host_id == other.peer_id
        await other.close()


async def test_where_all_say_no_the_reason_is_told(person, guest):
    async with service(person, refused={"alice": "Only the staff may."}) as scripted:
        with pytest.raises(HubRefused, match=r"^Only the staff may\. Ask whoever"):
            async with joined(guest, "http://127.0.0.1:9/services/none/", scripted.url):
                pass


async def test_an_unknown_token_is_refused(person, guest, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "forged")
    async with service(person) as scripted:
        with pytest.raises(HubRefused, match="Nobody has this token"):
            async with joined(guest, scripted.url):
                pass


async def test_leaving_gives_the_seat_up_once_nobody_is_connected(person, guest):
    async with service(person) as scripted:
        async with joined(guest, scripted.url) as mesh:
            pass
        assert scripted.asked == ["POST", "DELETE"]
        assert scripted.given_up == [0]
        assert mesh.seats._seats == {}


async def test_leaving_one_host_gives_its_seat_up(person, guest):
    async with service(person) as scripted, joined(guest, scripted.url) as mesh:
        # While there is a seat, its host is looked for through the Hub's proxy, too.
        assert list(mesh._finder._also) == [scripted.host.peer_id]
        await mesh.leave(scripted.host.peer_id)
        assert scripted.asked == ["POST", "DELETE"]
        assert mesh.status() == []
        assert mesh._finder._also == {}
        with pytest.raises(NotJoined):
            await texts(mesh)


async def test_leaving_waits_for_no_service(person, guest, monkeypatch):
    monkeypatch.setattr(keeping, "_GIVE_UP_WITHIN", 0.2)
    async with service(person) as scripted:
        async with joined(guest, scripted.url) as mesh:
            scripted.misbehave = lambda _: asyncio.sleep(3)
            with anyio.fail_after(2):
                await mesh.close()
        assert scripted.asked == ["POST", "DELETE"]


async def test_an_interrupted_join_leaves_nothing(person, guest):
    async with service(person) as scripted:
        scripted.misbehave = lambda _: asyncio.sleep(0.5)
        with anyio.move_on_after(0.2):
            async with joined(guest, scripted.url):
                pass
        assert scripted.asked == ["POST"]

        def is_the_guests(task):
            return any(part in repr(task) for part in ("/guest/", "/simple_httpclient.py"))

        await until(lambda: not any(map(is_the_guests, asyncio.all_tasks())))


async def test_to_join_again_keeps_the_connection(person, guest):
    async with service(person) as scripted, joined(guest, scripted.url) as mesh:
        (link,) = mesh.links
        live = link._live
        assert await mesh.seats.take([scripted.service], "", 10.0) is link
        assert (mesh.links, link._live) == ((link,), live)
        assert scripted.asked == ["POST", "POST"]
        # Under another name it is another greeting.
        again = await mesh.seats.take([scripted.service], "Ada", 10.0)
        assert mesh.links == (again,)
        await until(lambda: link.is_concluded)
        assert "".join(await texts(mesh)) == "one two three"


async def test_who_was_refused_may_ask_again(person, guest):
    async with service(person) as scripted, joined(guest, scripted.url) as mesh:
        scripted.refused["alice"] = "No."
        await scripted.end_seat(guest.identity().peer_id)
        await until(lambda: isinstance(mesh.links[0].over, HubRefused))
        with pytest.raises(HubRefused):
            await mesh.seats.take([scripted.service], "", 10.0)
        scripted.refused.clear()
        await mesh.seats.take([scripted.service], "", 10.0)
        assert len(mesh.links) == 1
        assert mesh.status()[0]["problem"] is None
        assert "".join(await texts(mesh)) == "one two three"


@pytest.mark.parametrize("why", ["the service", "its host", "an interrupt"])
async def test_who_was_told_that_joining_failed_is_not_joined_later(
    person, guest, monkeypatch, why
):
    monkeypatch.setattr(keeping, "Backoff", lambda *_: Soon())
    other = await person("other").host(Echo())
    mesh = await GuestMesh.join(bare(await grant(other)), guest.settings)
    try:
        async with service(person) as scripted:
            finding = mesh._finder.find
            if why == "its host":
                monkeypatch.setattr(mesh._finder, "find", nowhere)
            else:
                scripted.misbehave = (
                    answers(500) if why == "the service" else lambda _: asyncio.sleep(0.6)
                )
            with pytest.raises((HubNotFound, HostNotFound, TimeoutError)):
                with anyio.fail_after(0.3 if why == "an interrupt" else 10):
                    await mesh.seats.take([scripted.service], "", 2.0)
            asked = len(scripted.asked)
            scripted.misbehave = None
            monkeypatch.setattr(mesh._finder, "find", finding)
            await asyncio.sleep(0.8)
            assert [link.host_id for link in mesh.links] == [other.peer_id]
            assert "POST" not in scripted.asked[asked:]
            assert mesh.seats.problems == []
            # And it can be tried again.
            await mesh.seats.take([scripted.service], "", 10.0)
            assert len(mesh.links) == 2
    finally:
        await mesh.close()
        await other.close()


async def test_a_link_of_the_same_host_takes_the_seat_s_place(person, guest):
    async with service(person) as scripted, joined(guest, scripted.url) as mesh:
        link = await mesh.add(bare(await grant(scripted.host)))
        assert mesh.links == (link,)
        assert mesh.status()[0]["seat"] is None
        assert "DELETE" in scripted.asked


async def test_two_names_of_one_service_are_one_host(person, guest):
    async with service(person) as scripted:
        other = scripted.url.replace("127.0.0.1", "localhost")
        async with joined(guest, other, scripted.url) as mesh:
            await until(lambda: scripted.asked.count("POST") == 2)
            assert len(mesh.links) == 1
