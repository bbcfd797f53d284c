"""What ``docs/jupyterhub.md`` promises for the first ten minutes, done as it says."""

from __future__ import annotations

import time

from tests.docs.pages import ROOT, blocks
from tests.hub.hub import Hub

PAGE = ROOT / "docs" / "jupyterhub.md"


def until_it_answers(hub):
    deadline = time.monotonic() + 60
    while hub.ask("GET", "services/qmt/health").status != 200:
        assert time.monotonic() < deadline, hub.log[-2000:]
        time.sleep(0.05)


def test_from_the_one_line_to_an_answer(hub_is_possible, tmp_path):
    configuring, *cells = blocks(PAGE, "python", heading="In ten minutes, on one machine")
    load, join, ask = (each.code for each in cells)
    with Hub(tmp_path / "hub", users=["ada", "ben"], text=configuring.code) as hub:
        ben = hub.start_server("ben")
        # The Hub starts the service, which loads the model.
        until_it_answers(hub)
        ben.run(load)
        assert "smollm2" in ben.run(join)
        answer = ben.run(ask.replace("%%chat", "%%chat --max-tokens 8 --seed 1"))
        assert "smollm2" in answer
        assert hub.ask("GET", "services/qmt/api/state", token=ben.token).status == 403
        state = hub.ask("GET", "services/qmt/api/state", token=hub.token_of("ada")).value
        (entry,) = state["users"]
        assert entry["user"] == "ben"
        assert entry["requests"] == 1
        assert entry["allowance"]["tokens_per_day"] == 200_000
    assert hub.left_behind == []
