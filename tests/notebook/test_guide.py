"""What a magic says of itself, and what a bare %qmt says of the kernel."""

from __future__ import annotations

import pytest

import qmt_jupyter as qmt
from qmt_jupyter.notebook.arguments import flags_and_prompt
from qmt_jupyter.notebook.guide import guide, standing
from qmt_jupyter.notebook.options import options
from qmt_jupyter.notebook.parsers import EXAMPLES, PARSERS, switches
from qmt_jupyter.notebook.state import STATE, State
from qmt_jupyter.providers.echo import Echo
from tests.notebook.scripted import run


@pytest.mark.parametrize("name", PARSERS)
def test_every_magic_is_there_and_shows_examples_that_it_takes(name, shell):
    kind, _, bare = name.rpartition("%")
    find = shell.find_cell_magic if kind else shell.find_line_magic
    assert PARSERS[name].epilog in find(bare).__doc__ or bare == "chat"
    assert "examples:" in run(shell, f"{name} --help\nx" if kind else f"{name} --help")
    assert EXAMPLES[name]
    for example in EXAMPLES[name]:
        line, _, body = example.cell.partition("\n")
        called, _, rest = line.partition(" ")
        assert called == name
        assert bool(body) == (name == "%%chat")
        if name == "%chat":
            rest, prompt = flags_and_prompt(rest, switches(PARSERS[name]))
            assert prompt
        assert options(PARSERS[name], rest) is not None


def test_every_registered_magic_of_ours_has_its_parser(shell):
    registered = shell.magics_manager.magics
    for kind, marks in (("line", "%"), ("cell", "%%")):
        ours = {
            marks + name
            for name, function in registered[kind].items()
            if getattr(function, "__module__", "").startswith("qmt_jupyter")
        }
        assert ours == {n for n in PARSERS if n.count("%") == len(marks)}


def test_a_bare_qmt_says_where_the_kernel_stands_and_what_there_is(shell, hosting):
    said = run(shell, "%qmt")
    assert said.startswith("This kernel neither hosts a model nor has joined a host.")
    for name in PARSERS:
        assert f"  {name} " in said
    assert max(map(len, said.splitlines())) <= 110
    hosting(Echo())
    STATE.mesh = qmt.join(STATE.host.invite.url)
    run(shell, "%%chat\nhi")
    ends = STATE.host.peer_id[-8:]
    assert run(shell, "%qmt").splitlines()[0] == (
        f"This kernel hosts echo, has joined Team ({ends}) and holds 2 messages of a conversation."
    )


def test_a_hostile_mesh_or_model_name_stays_within_the_line():
    class Mesh:
        def _known(self):
            from qmt_jupyter.facade import Known

            return [Known("12D3KooWabcd1234", "Lab\x1b[2J\nThis kernel", ())]

    line = standing(State(mesh=Mesh()))
    assert line == "This kernel has joined Lab [2J This kernel (abcd1234)."
    assert "\x1b" not in guide(State(mesh=Mesh()), PARSERS)
