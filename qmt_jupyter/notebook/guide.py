"""What a bare ``%qmt`` says: where this kernel stands, what to do next, and what there is."""

from __future__ import annotations

from collections.abc import Mapping

from .. import flags
from ..harmless import printable
from ..identity.peer_id import short
from ..words import count
from .state import State

_HOSTING = """\
To share a model from this machine:
  %qmt_host                    look what runs here, or share a small model
  %qmt_invite                  one more link (uses, lifetime, limits); %qmt_revoke takes one back
  %qmt_usage                   who used what, and what remains"""
_USING = """\
To use a model of somebody who sent you a link:
  %qmt_join                    asks for the link unseen; needs none on a JupyterHub with a service
  %%chat                       the rest of the cell is the question; the model's host can read it
  %%chat --context df          with a variable; --fill, --json, --save: see %%chat?"""
_MORE = """\
%magic? or %magic --help shows a magic's flags and examples; the Tab key completes flags, models,
hosts and ids. Guides for hosts and guests, and what is promised of security: docs/ of the project
qmt-jupyter. From Python: import qmt_jupyter as qmt; help(qmt)."""


def guide(state: State, parsers: Mapping[str, flags.Parser]) -> str:
    """The whole text; looks at what is known, and asks nobody."""
    width = max(len(name) for name in parsers)
    listed = "\n".join(
        f"  {name:<{width}}  {parser.description}" for name, parser in parsers.items()
    )
    return "\n\n".join([standing(state), _HOSTING, _USING, f"All magics:\n{listed}", _MORE])


def standing(state: State) -> str:
    """This kernel in one line."""
    said = []
    if state.host is not None:
        said.append(f"hosts {_names(state.host.models)}")
    joined = [] if state.mesh is None else state.mesh._known()
    if joined:
        meshes = ", ".join(f"{printable(each.mesh, 60)} ({short(each.host)})" for each in joined)
        said.append(f"has joined {meshes}")
    if state.conversation:
        said.append(f"holds {count(len(state.conversation), 'message')} of a conversation")
    if not said:
        return "This kernel neither hosts a model nor has joined a host."
    first, last = ", ".join(said[:-1]), said[-1]
    return f"This kernel {first} and {last}." if first else f"This kernel {last}."


def _names(models: list[str]) -> str:
    return ", ".join(printable(name, 60) for name in models) or "no model"
