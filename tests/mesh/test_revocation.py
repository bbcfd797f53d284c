"""Revocation bites: running answers end, coming back is refused, and nobody else notices."""

from __future__ import annotations

import anyio
import pytest

from qmt_jupyter.errors import OptionInvalid, Revoked
from qmt_jupyter.host import owner
from qmt_jupyter.host.granting import Terms
from qmt_jupyter.host.limits import Limits
from qmt_jupyter.providers.echo import Echo
from qmt_jupyter.wire import messages
from tests.mesh.conftest import bare, grant, only_guest, question, texts, until

pytestmark = pytest.mark.anyio


class Asking:
    """A long answer in progress: how many pieces came, and how it ended."""

    def __init__(self, mesh, tasks) -> None:
        self.mesh = mesh
        self.pieces = 0
        self.error = None
        self.done = False
        tasks.start_soon(self._run)

    async def _run(self):
        try:
            async for reply in self.mesh.answer(question(max_tokens=100_000)):
                self.pieces += isinstance(reply, messages.Delta)
            self.done = True
        except Exception as error:
            self.error = error


async def revoke_here(service, home, which):
    await service.revoke(which)


async def revoke_from_elsewhere(service, home, which):
    await anyio.to_thread.run_sync(owner.revoke, home.host_dir, which)


@pytest.mark.parametrize("revoke", [revoke_here, revoke_from_elsewhere])
@pytest.mark.parametrize("what", ["invite", "guest"])
async def test_a_revoked_guest_stops_at_once_and_cannot_come_back(person, revoke, what):
    host = person("host")
    service = await host.host(Echo(slots=8, delay=0.005, repeat=True))
    granted, other = await grant(service), await grant(service)
    mesh = await person("guest").join(granted)
    bystander = await person("bystander").join(other)
    async with anyio.create_task_group() as tasks:
        asking = [Asking(mesh, tasks) for _ in range(4)]
        beside = Asking(bystander, tasks)
        # Of five pieces one is the role: four answers of four tokens are more than twelve.
        await until(lambda: all(each.pieces > 4 for each in (*asking, beside)))
        which = granted.invite.invite_id if what == "invite" else only_guest(service)["membership"]
        await revoke(service, host.settings, which[:8])
        with anyio.fail_after(5):
            await until(lambda: all(each.error for each in asking))
        assert {type(each.error) for each in asking} == {Revoked}
        assert "revoked" in str(asking[0].error)
        before = beside.pieces
        await until(lambda: beside.pieces > before + 20)
        assert (beside.error, bystander.status()[0]["connected"]) == (None, True)
        await until(lambda: service.providers[0].running == 1)
        guest = only_guest(service)
        assert guest["ended"] == {"revoked": 4}
        assert guest["completion_tokens"] > 12, "what was streamed is counted"
        assert guest["revoked_at"] is not None or what == "invite"
        for _ in range(2):
            with pytest.raises(Revoked):
                await texts(mesh)
        with pytest.raises(Revoked):
            await person("guest").join(granted)
        tasks.cancel_scope.cancel()
    await service.close()

    service = await host.host()
    with pytest.raises(Revoked):
        await person("guest").join(bare(granted))
    again = await person("bystander").join(bare(other))
    assert "".join(await texts(again)) == "one two three"
    for each in (mesh, bystander, again, service):
        await each.close()


async def test_a_request_that_waits_is_revoked_too_and_frees_its_place(person):
    service = await person("host").host(Echo(slots=1, delay=0.005, repeat=True))
    granted, other = await grant(service), await grant(service)
    mesh, honest = await person("guest").join(granted), await person("honest").join(other)
    async with anyio.create_task_group() as tasks:
        running, waiting = Asking(mesh, tasks), Asking(mesh, tasks)
        await until(lambda: service.status()["waiting"] == 1)
        await service.revoke(granted.invite.invite_id)
        await until(lambda: running.error and waiting.error)
        assert {type(running.error), type(waiting.error)} == {Revoked}
        await until(lambda: service.status()["waiting"] == 0)
        assert "".join(await texts(honest, max_tokens=3)) == "one two three "
    for each in (mesh, honest, service):
        await each.close()


async def test_an_invite_nobody_has_used_yet_can_be_revoked(person):
    service = await person("host").host()
    granted = await grant(service)
    assert await service.revoke(granted.invite.invite_id) == {
        "id": granted.invite.invite_id,
        "kind": "invite",
        "guests": 0,
    }
    with pytest.raises(Revoked, match="fresh link"):
        await person("guest").join(granted)
    with pytest.raises(OptionInvalid, match="No invite or guest"):
        await service.revoke("ffffffff")
    await service.close()


async def test_a_revocation_while_no_host_runs_holds_when_it_comes_back(person):
    host = person("host")
    service = await host.host()
    granted = await grant(service)
    mesh = await person("guest").join(granted)
    await service.close()
    await revoke_from_elsewhere(service, host.settings, granted.invite.invite_id)
    service = await host.host()
    with pytest.raises(Revoked):
        await texts(mesh)
    await mesh.close()
    await service.close()


async def test_an_invite_made_by_another_process_admits_at_once(person):
    host = person("host")
    service = await host.host()
    link = await anyio.to_thread.run_sync(
        owner.make_invite, host.settings.host_dir, Terms("Other", 1, 60, Limits(requests=2))
    )
    mesh = await person("guest").join(link)
    assert mesh.status()[0]["left"] == {"requests": 2, "tokens": None}
    assert service.usage()["invites"][0]["uses"] == 1
    await mesh.close()
    await service.close()
