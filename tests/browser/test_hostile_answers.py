"""What a model writes, in a real page: it loads nothing, runs nothing, and looks like an answer."""

from __future__ import annotations

import pytest

from tests.browser.people import LOAD

expect = pytest.importorskip("playwright.sync_api").expect

AWAY = "http://203.0.113.7"  # an address for documentation: nobody is there
FORBIDDEN = (
    "script, img, iframe, object, embed, link, style, svg, image, video, audio, section, form, "
    "input, .qmt-card, .qmt-panel, .qmt-frozen, .qmt-strip, [aria-label=Host]"
)
ANSWER = f"""\
beginning

<script>globalThis.taken = 1</script>
<img src="{AWAY}/i.png" onerror="globalThis.taken = 2">
<iframe src="{AWAY}/f.html" srcdoc="<script>parent.taken = 3</script>"></iframe>
<style>@import "{AWAY}/s.css"; body {{ background: url({AWAY}/b.png) !important }}</style>
<section class="qmt-panel" aria-label="Host"><button>Stop hosting</button></section>
<svg onload="globalThis.taken = 4"><image href="{AWAY}/v.png"/></svg>
<link rel="stylesheet" href="{AWAY}/l.css"><object data="{AWAY}/o"></object>

![remote]({AWAY}/m.png) ![here](javascript:globalThis.taken=5)
[click](javascript:globalThis.taken=6) [data](data:text/html,<script>globalThis.taken=7</script>)

```html
<script>globalThis.taken = 8</script><img src="{AWAY}/c.png">
```

```mermaid
graph TD; A["<img src={AWAY}/d.png>"]
```

$$\\href{{javascript:globalThis.taken=9}}{{x}} \\includegraphics{{{AWAY}/t.png}}$$

end"""


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_what_a_model_writes_loads_nothing_and_runs_nothing(opened, app):
    asked = opened("hostile", LOAD, "%qmt_host --model echo", f"%%chat\n{ANSWER}", app=app)
    asked.run(0, 1, 2)
    answer = asked.answer(2)
    expect(answer).to_contain_text("beginning")
    expect(answer).to_contain_text("globalThis.taken = 8")
    expect(answer).to_contain_text("tokens")
    expect(answer.locator(FORBIDDEN)).to_have_count(0)
    links = "es => es.map(e => [new URL(e.href).origin, e.target, e.relList.contains('noopener')])"
    assert answer.locator("a").evaluate_all(links) == [[AWAY, "_blank", True]], "to be clicked only"
    handlers = "es => es.flatMap(e => e.getAttributeNames()).filter(name => name.startsWith('on'))"
    assert answer.locator("*").evaluate_all(handlers) == []
    assert asked.page.evaluate("globalThis.taken === undefined")
    # That nobody was asked for anything is looked at after every test.
