"""What runs in the background ends when it is told to, whatever else happens at that moment."""

from __future__ import annotations

import asyncio

import pytest

from qmt_jupyter.mesh import ending
from qmt_jupyter.mesh.node import DhtNode
from qmt_jupyter.mesh.table import Table
from tests.mesh.conftest import REACH

pytestmark = pytest.mark.anyio


async def test_a_cancellation_that_was_lost_is_said_again(monkeypatch):
    monkeypatch.setattr(ending, "AGAIN", 0.05)
    heard = []

    async def loses_the_first():
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                heard.append(1)
                if len(heard) == 2:
                    raise

    task = asyncio.ensure_future(loses_the_first())
    await asyncio.sleep(0)
    await ending.end([task])
    assert len(heard) == 2
    await ending.end([])


async def test_a_table_that_is_woken_as_it_is_ended_ends():
    """wait_for lost the cancellation, and leaving the mesh waited for ever."""
    node = await DhtNode.open(REACH)
    table = Table(node)
    keeping = asyncio.ensure_future(table.keep())
    await asyncio.sleep(0.05)
    table._wake.set()
    keeping.cancel()
    done, _ = await asyncio.wait([keeping], timeout=5)
    await ending.end([keeping])
    await node.close()
    assert done == {keeping}
