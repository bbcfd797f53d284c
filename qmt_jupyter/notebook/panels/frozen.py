"""The calm view: what a panel leaves in the saved notebook, in place of a broken widget.

A widget lives in its kernel and in the page. In a file that was reopened there is neither, and the
front ends put an error where the widget was. So a panel is shown as two outputs: first a text, in
HTML and plain, and then the widget. While the panel lives it hides the text; where it cannot, the
text is all there is to see:

- reopened without the widgets' state: JupyterLab and Notebook write *Error displaying widget: model
  not found* (or *Loading widget…* while no kernel is chosen) into a node that has no elements. The
  text's own style hides such a node after it.
- reopened with the widgets' state: the panel itself is drawn again, finds no kernel and shows
  :attr:`frozen <qmt_jupyter.notebook.panels.base.Panel.frozen>`, which holds the same text.
- an untrusted file, nbviewer, GitHub: widgets are not drawn and styles are left out. The widget's
  output has an empty HTML form, so that nothing is shown beside the text.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from IPython.display import display

if TYPE_CHECKING:
    from .base import Panel

# No :has() stands within another, which is invalid; :empty would not match a node with text in it.
_STYLE = """\
.qmt-frozen{margin:0.25rem 0;padding:0.25rem 0.75rem;max-width:60rem;\
border-inline-start:3px solid var(--jp-border-color1,#8888)}
.qmt-frozen p{margin:0.1rem 0}
.qmt-frozen[hidden]{display:none}
.jp-OutputArea-child:has(.qmt-frozen)+.jp-OutputArea-child>.jp-OutputArea-output:not(:has(*)),\
.jp-OutputArea-child:has(.qmt-frozen):has(+.jp-OutputArea-child .qmt-panel){display:none}
"""


def bundle(frozen: dict[str, Any]) -> dict[str, str]:
    """A panel's frozen text as MIME types. It may hold what hosts and guests call themselves."""
    paragraphs = "".join(f"<p>{html.escape(line)}</p>" for line in frozen["lines"])
    return {
        "text/plain": "\n".join([frozen["title"], *frozen["lines"]]),
        "text/html": (
            f"<style>{_STYLE}</style>"
            f'<div class="qmt-frozen" data-panel="{html.escape(frozen["id"])}">'
            f"<p><strong>{html.escape(frozen['title'])}</strong></p>{paragraphs}</div>"
        ),
    }


def show(panel: Panel) -> None:
    """Display a panel, after the text that it leaves behind."""
    display(bundle(panel.frozen), raw=True)
    data, metadata = _widget(panel)
    # A front end without widgets takes the richest form that it knows: this one shows nothing.
    display({**data, "text/html": "<span></span>"}, raw=True, metadata=metadata)


def _widget(panel: Panel) -> tuple[dict[str, Any], dict[str, Any]]:
    """The widget's own MIME types, with the metadata that Colab wants for them."""
    if hasattr(panel, "_repr_mimebundle_"):
        data, metadata = panel._repr_mimebundle_()
        return data, metadata
    # ipywidgets 7 displays by itself, and cannot be given another form beside.
    view = {"version_major": 2, "version_minor": 0, "model_id": panel.model_id}
    return {"text/plain": repr(panel), "application/vnd.jupyter.widget-view+json": view}, {}
