"""A very long answer: the message limits are kept, and the page answers clicks meanwhile."""

from __future__ import annotations

import json
import statistics

import pytest

from tests.browser.people import LOAD, host_cell

expect = pytest.importorskip("playwright.sync_api").expect

TOKENS = 20_000
# What a thousand-line answer is made of: lines of prose, a list, and code.
PROMPT = """\
The tide comes in and the tide goes out, as it always has.

- first the sand is wet, then it is dry
- then a crab walks by

```python
for wave in sea:
    print(wave.height, "metres")
```

"""
# From the press, as the browser's process saw it, until the next frame is drawn, in ms; and what
# the kernel publishes, in messages and characters, by the second.
WITNESS = """() => {
    const seen = { clicks: [], seconds: {} };
    const button = document.body.appendChild(document.createElement("button"));
    button.id = "pressed";
    button.textContent = "press";
    button.style.cssText = "position:fixed; right:0; bottom:0; z-index:99999";
    button.addEventListener("click", (event) => requestAnimationFrame(() =>
        seen.clicks.push(performance.now() - event.timeStamp)));
    jupyterapp.shell.currentWidget.sessionContext.iopubMessage.connect((_, message) => {
        const second = Math.floor(performance.now() / 1000);
        const sum = (seen.seconds[second] ??= { messages: 0, characters: 0 });
        sum.messages += 1;
        sum.characters += JSON.stringify(message.content).length;
    });
    globalThis.seen = seen;
}"""


def test_a_long_answer_keeps_the_limits_and_leaves_the_page_usable(opened, screenshots):
    asked = opened("long", LOAD, host_cell(), f"%%chat --max-tokens {TOKENS}\n{PROMPT}")
    asked.run(0, 1)
    asked.page.evaluate(WITNESS)
    button = asked.page.locator("#pressed")
    pressed = 0
    asked.start(2)
    while asked.is_running(2):
        button.click()
        asked.page.wait_for_timeout(50)
        pressed += 1
    assert pressed, "it was long enough to be clicked in"
    # What was pressed last may have been drawn only after the answer's end.
    asked.page.wait_for_function("pressed => seen.clicks.length === pressed", arg=pressed)
    seen = asked.page.evaluate("seen")
    figures = {
        "tokens": TOKENS,
        "clicks": len(seen["clicks"]),
        "click_ms_median": round(statistics.median(seen["clicks"])),
        "click_ms_longest": round(max(seen["clicks"])),
        "messages_per_s_most": max(each["messages"] for each in seen["seconds"].values()),
        "bytes_per_s_most": max(each["characters"] for each in seen["seconds"].values()),
        "seconds": len(seen["seconds"]),
    }
    (screenshots / "long-answer.json").write_text(json.dumps(figures, indent=2) + "\n")
    expect(asked.output(2)).to_contain_text(f"{TOKENS} tokens")
    assert asked.output(2).inner_text().count("crab") > TOKENS // 60
    assert "IOPub" not in asked.page.content()
    assert "rate" not in asked.server_log().lower()
    assert figures["messages_per_s_most"] < 1000
    assert figures["click_ms_median"] < 1000, "generous: the machine may be busy"
