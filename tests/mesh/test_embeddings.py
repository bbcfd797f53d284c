"""Embeddings from a guest to the host's model and back, through the same checks as a chat."""

from __future__ import annotations

import anyio
import pytest

from qmt_jupyter.errors import (
    ModelUnknown,
    RequestInvalid,
    Revoked,
    TokensUsedUp,
)
from qmt_jupyter.providers.base import Model
from qmt_jupyter.providers.echo import Echo
from tests.mesh.conftest import grant, only_guest, until

pytestmark = pytest.mark.anyio


async def test_a_guest_gets_the_vectors_of_its_texts_and_they_are_counted(person):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service))
    result = await mesh.embed({"input": ["abba", "zebra crossing"], "model": "echo"})
    assert [each["index"] for each in result["data"]] == [0, 1]
    assert result["data"][0]["embedding"][:3] == [2.0, 2.0, 0.0]
    assert result["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert (await mesh.embed({"input": "one"}))["model"] == "echo"
    guest = only_guest(service)
    assert (guest["requests"], guest["prompt_tokens"], guest["completion_tokens"]) == (2, 4, 0)
    assert await service.embed({"input": "one"}) == await mesh.embed({"input": "one"})
    await mesh.close()
    await service.close()


async def test_budgets_and_the_list_of_parameters_hold_for_embeddings(person):
    service = await person("host").host()
    mesh = await person("guest").join(await grant(service, tokens=10))
    with pytest.raises(RequestInvalid, match="base_url"):
        await mesh.embed({"input": "a", "base_url": "http://127.0.0.1:9"})
    with pytest.raises(TokensUsedUp):
        await mesh.embed({"input": "word " * 100})
    with pytest.raises(RequestInvalid, match="JSON"):
        await mesh.embed({"input": ["a", object()]})
    assert only_guest(service)["prompt_tokens"] == 0
    await mesh.close()
    await service.close()


async def test_revoking_ends_embeddings_in_the_middle(person):
    provider = Echo(delay=0.05)
    service = await person("host").host(provider)
    granted = await grant(service)
    mesh = await person("guest").join(granted)

    async def revoke():
        await until(lambda: provider.running)
        await service.revoke(granted.invite.invite_id)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(revoke)
        with pytest.raises(Revoked):
            await mesh.embed({"input": ["word"] * 1000})
    await until(lambda: not provider.running)
    assert provider.cancelled == 1
    await mesh.close()
    await service.close()


async def test_a_guest_that_gives_up_stops_the_host(person):
    provider = Echo(delay=0.05)
    service = await person("host").host(provider)
    mesh = await person("guest").join(await grant(service))
    with anyio.move_on_after(0.5):
        await mesh.embed({"input": ["word"] * 1000})
    await until(lambda: provider.cancelled == 1)
    await mesh.close()
    await service.close()


async def test_a_mesh_without_such_a_model_says_so(person):
    class Chats(Echo):
        @property
        def models(self):
            return (Model("echo"),)

    service = await person("host").host(Chats())
    mesh = await person("guest").join(await grant(service))
    with pytest.raises(ModelUnknown, match="No host offers a model that makes embeddings"):
        await mesh.embed({"input": "a"})
    await mesh.close()
    await service.close()
