"""How little loading costs, and who answers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import qmt_jupyter as qmt
from qmt_jupyter.errors import ModelUnknown, NotHosting, NotJoined
from qmt_jupyter.notebook.state import State


def test_loading_the_extension_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "shell.run_line_magic('load_ext', 'qmt_jupyter')\n"
        "heavy = ('iroh', 'zeroconf', 'nacl', 'xllamacpp', 'anywidget', 'msgspec', 'markdown_it')\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "shell.run_line_magic('unload_ext', 'qmt_jupyter')\n"
        "print('chat' in shell.magics_manager.magics['cell'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\nFalse\n", done.stderr


def test_who_answers_is_the_own_model_first_then_a_mesh_that_has_it():
    class Joined:
        models = ({"name": "big"},)

    class Hosting:
        models = ("small",)
        is_running = True

    state = State()
    with pytest.raises(NotJoined):
        state.who_answers(None)
    with pytest.raises(NotHosting):
        state.hosting()
    state.mesh = Joined()
    assert state.who_answers(None) is state.mesh
    state.started = Hosting()
    assert state.who_answers(None) is state.host
    assert state.who_answers("big") is state.mesh
    with pytest.raises(ModelUnknown):
        state.who_answers("huge")
    qmt.config.auto_fallback = False
    with pytest.raises(ModelUnknown, match="not to look") as raised:
        state.who_answers("big")
    assert "auto_fallback" in raised.value.next_step
    qmt.config.auto_fallback = True
    state.mesh = None
    with pytest.raises(ModelUnknown, match="hosts small"):
        state.who_answers("big")


def test_the_preferences_are_one_for_config_and_for_python():
    code = (
        "import qmt_jupyter as qmt\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from traitlets.config import Config\n"
        "given = Config()\n"
        "given.QmtMagics.auto_fallback = False\n"
        "shell = InteractiveShell.instance(config=given)\n"
        "run = shell.run_line_magic\n"
        "run('load_ext', 'qmt_jupyter')\n"
        "print(qmt.config.auto_fallback)\n"
        "run('config', 'QmtMagics.auto_fallback = True')\n"
        "print(qmt.config.auto_fallback)\n"
        "run('reload_ext', 'qmt_jupyter')\n"
        "qmt.config.auto_fallback = False\n"
        "print(run('config', 'QmtMagics.auto_fallback'))\n"
        "run('config', 'QmtMagics.auto_fallback = 5')\n"
        "print(qmt.config.auto_fallback)\n"
        "run('unload_ext', 'qmt_jupyter')\n"
        "print([c for c in shell.configurables if type(c).__name__ == 'QmtMagics'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    lines = [line for line in done.stdout.splitlines() if "rror" not in line and line]
    assert lines[:3] == ["False", "True", "False"], done.stdout + done.stderr
    assert lines[-2:] == ["False", "[]"], done.stdout + done.stderr
