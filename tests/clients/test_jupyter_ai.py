"""jupyter-ai's magics, unchanged and in a real kernel, against a guest's endpoint."""

from __future__ import annotations

import pytest

from .conftest import told

pytestmark = pytest.mark.timeout(240)

ENVIRONMENTS = {"3": ".venv-clients", "2": ".venv-clients-jupyter-ai-2"}


@pytest.fixture(scope="module", params=sorted(ENVIRONMENTS))
def ran(request, scripted, client_home):
    """What each cell of a session showed, by its first words."""
    told_ = told(
        scripted,
        request.param,
        scripted.models[0],
        environment=ENVIRONMENTS[request.param],
        program="jupyter_ai.py",
        home=client_home,
    )
    return told_["cells"]


def cell(ran, words):
    (found,) = [each for each in ran if words in each["code"]]
    return found


def test_a_cell_is_answered_as_text(ran):
    assert ["result", "one two three"] in cell(ran, "blue")["outputs"]


def test_an_alias_answers_with_code_in_the_next_cell(ran):
    assert cell(ran, "Python")["next_cells"] == ["one two three"]


def test_a_model_that_is_not_there_is_said_with_what_is(ran):
    said = str(cell(ran, "Hello")["outputs"])
    assert "NotFoundError" in said
    assert "offered: scripted" in said
