"""The calm view as an output: what a file shows where a panel was."""

from __future__ import annotations

from qmt_jupyter.notebook.panels import frozen

TEXT = {"id": "0a1b2c3d", "title": "Sharing <echo>", "lines": ["One & two.", "Three."]}


def test_it_is_text_in_html_and_plain_and_nothing_of_it_is_markup():
    shown = frozen.bundle(TEXT)
    assert set(shown) == {"text/plain", "text/html"}
    assert shown["text/plain"] == "Sharing <echo>\nOne & two.\nThree."
    assert "<strong>Sharing &lt;echo&gt;</strong>" in shown["text/html"]
    assert "<p>One &amp; two.</p>" in shown["text/html"]
    assert 'data-panel="0a1b2c3d"' in shown["text/html"]


def test_an_id_cannot_leave_its_attribute():
    assert '"><script>' not in frozen.bundle({**TEXT, "id": '"><script>'})["text/html"]
