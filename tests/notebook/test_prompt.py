"""What goes with a prompt: what was asked for by name, all of it said, and nothing secret."""

from __future__ import annotations

import os
import types
import uuid

import pytest

import qmt_jupyter as qmt
from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.identity import invite, keys, link
from qmt_jupyter.notebook.prompt import Cells, context, fill, sent_line, with_context
from qmt_jupyter.notebook.values import LONGEST, bounded, sendable

CELLS = Cells(["", "x = 6", "x * 7", "print('no result')", "%%chat --context 1"], {2: 42}, 4)


def filled(template, **names):
    return fill(template, names)[0]


def labels(*asked, **names):
    return [each.label for each in context(asked, names, CELLS)]


@pytest.fixture(scope="module")
def url():
    """A real invite's link, with addresses."""
    made = invite.create(
        keys.Identity.fresh(), invite_id=uuid.uuid4(), name="Team", expires_at=0, max_uses=1
    )
    return link.write(made, link.Hints(addresses=("192.0.2.1:4000", "[2001:db8::1]:4000")))


# Filling ---------------------------------------------------------------------------------------


def test_names_parts_and_keys_are_filled_in():
    thing = types.SimpleNamespace(part={"key": [10, 20]})
    assert filled("{a} {t.part[key][1]}!", a="x", t=thing) == "x 20!"
    assert filled("{x:.2f} {x!r} {x:{w}}", x=1.5, w=6) == "1.50 1.5    1.5"


def test_doubled_braces_stay_and_what_is_filled_in_is_not_read_again():
    assert filled("{{a}} {a} {{}}", a="{b} {{c}}") == "{a} {b} {{c}} {}"


def test_all_names_that_are_missing_are_listed():
    with pytest.raises(OptionInvalid, match=r"no variable nope, zap: nothing was sent"):
        fill("{zap} {a} {nope} {a:{zap}}", {"a": 1})


@pytest.mark.parametrize(
    "template",
    [
        "{}", "{0}", "{a()}", "{a + 1}", "{a.b()}", "{a['k']}x{", "}", "{a!x}", "{1:x}", "{a.}",
        "{ a }", "{a-b}", "{__import__('os')}", "{a.__class__}", "{a._private}", "{a[0].__doc__}",
        "{a:d}", "{a.nothing}", "{a[nothing]}",
    ],
)  # fmt: skip
def test_what_is_no_plain_look_up_is_refused(template):
    with pytest.raises(OptionInvalid):
        fill(template, {"a": ["text"]})


def test_filling_calls_nothing_that_is_looked_up():
    called = []
    thing = types.SimpleNamespace(method=lambda: called.append(1))
    assert "function" in filled("{t.method}", t=thing)
    assert called == []


class Broken:
    def __repr__(self):
        raise RuntimeError("broken")


@pytest.mark.parametrize("template", ["{b}", "{b!r}", "{b!s:>4}"])
def test_a_value_that_cannot_be_written_is_one_sentence(template):
    with pytest.raises(OptionInvalid, match="cannot be filled in: RuntimeError: broken"):
        filled(template, b=Broken())


def test_braces_in_braces_without_end_are_one_sentence():
    with pytest.raises(OptionInvalid):
        filled("{b:" * 2_000 + "}" * 2_000, b=1)


def test_an_object_on_the_way_to_a_secret_is_refused():
    holder = types.SimpleNamespace(os=os)
    with pytest.raises(OptionInvalid, match="environment"):
        fill("{h.os.environ[PATH]}", {"h": holder})


# Context ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("1", ["In[1]"]),
        ("2", ["In[2]", "Out[2]"]),
        ("In[2]", ["In[2]"]),
        ("Out[2]", ["Out[2]"]),
        ("1-3", ["In[1]", "In[2]", "Out[2]", "In[3]"]),
        ("In[1-2]", ["In[1]", "In[2]"]),
        ("-1", ["In[3]"]),
        ("-3--2", ["In[1]", "In[2]", "Out[2]"]),
        ("x, 1 ,x", ["x", "In[1]"]),
        ("y,x", ["y", "x"]),
    ],
)
def test_cells_and_variables_are_found_each_once(asked, found):
    assert labels(asked, x=1, y=2) == found


@pytest.mark.parametrize(
    "asked",
    ["nope", "", "x,", "x.y", "x()", "4", "0", "9", "-4", "3-1", "Out[1]", "In[4]", "In[", "1.5"],
)
def test_what_is_not_there_is_an_error(asked):
    with pytest.raises(OptionInvalid):
        labels(asked, x=1)


def test_a_range_is_bounded():
    many = Cells([""] * 500, {}, 499)
    with pytest.raises(OptionInvalid, match="At most"):
        context(["1-400"], {}, many)


def test_a_prompt_comes_after_its_context_and_no_fence_ends_early():
    sent = context(["1", "x"], {"x": "a\n```\nb"}, CELLS)
    assert with_context("Why?", sent) == (
        "In[1]:\n```\nx = 6\n```\n\nx:\n````\na\n```\nb\n````\n\nWhy?"
    )
    assert sent_line(sent, []) == "Sent with the prompt: In[1] (5 characters), x (7 characters)."
    assert sent_line([], []) == ""


# Values ----------------------------------------------------------------------------------------


def test_a_text_is_sent_as_it_is_and_other_things_as_below_a_cell():
    assert sendable("x", "as it\nis").text == "as it\nis"
    assert sendable("x", {"b": [1, 2]}).text == "{'b': [1, 2]}"
    assert "def filled(" in sendable("x", filled).text


def test_a_long_value_is_cut_and_both_sides_are_told():
    each = sendable("x", "ab" * LONGEST)
    assert len(each.text) == LONGEST
    assert f"only the first {LONGEST} of {2 * LONGEST} characters" in each.size
    assert f"cut off here; it has {2 * LONGEST} characters" in with_context("", [each])
    assert sendable("x", "a" * LONGEST).whole is None
    assert len(sendable("x", b"\0" * 10**7).text) <= LONGEST
    assert len(sendable("x", [0] * 10**6).text) <= LONGEST


def test_a_data_frame_is_sent_as_shape_types_and_first_rows():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"count": range(1000), "name": ["n"] * 1000})
    each = sendable("df", frame)
    assert each.kind == "DataFrame, 1000 rows and 2 columns"
    assert "int64" in each.text
    assert "count name" in " ".join(each.text.split())
    assert "999" not in each.text
    column = sendable("c", frame["count"])
    assert column.kind == "Series, 1000 rows"
    assert "int64" in column.text


def test_groups_of_a_data_frame_are_sent_as_below_a_cell():
    pandas = pytest.importorskip("pandas")
    groups = pandas.DataFrame({"a": [1, 1]}).groupby("a")
    assert "GroupBy object" in sendable("groups", groups).text


def test_a_value_whose_own_code_fails_is_an_error():
    class Broken:
        def __repr__(self):
            raise RuntimeError("no")

    with pytest.raises(OptionInvalid, match="RuntimeError"):
        sendable("x", Broken())


def test_invite_links_and_keys_are_hidden_wherever_they_stand(url):
    token = url.rpartition("/")[2].partition("?")[0]
    for text in (
        f"see {url}.", f"'{url}'", f"QMT://MESH/JOIN/{token}", token, f"{url}\n{url}",
        f"({url})",
    ):  # fmt: skip
        each = sendable("x", text)
        assert token[:20] not in each.text
        assert "192.0.2.1" not in each.text
        assert "invite link" in each.size
    for key in (
        "sk-" + "a1B2" * 8, "hf_" + "a" * 34, "ghp_" + "b" * 36, "AKIA" + "A1" * 8,
        "qmt-" + "x_-Y" * 11,
        "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----",
    ):  # fmt: skip
        each = sendable("x", {"key": key})
        assert key[8:] not in each.text
        assert "key hidden" in each.size


def test_a_secret_across_the_cut_is_hidden(url):
    each = bounded("x", "a" * (LONGEST - 60) + url)
    assert url[:60] not in each.text
    assert each.hidden == ("invite link",)


def test_what_looks_like_no_secret_stays():
    for text in ("task-management-of-a-long-winding-name", "qmt://mesh/join/", "12D3KooW" * 20):
        assert sendable("x", text).text == text


def test_objects_that_give_access_are_refused():
    with pytest.raises(OptionInvalid, match="environment"):
        sendable("env", os.environ)
    with pytest.raises(OptionInvalid, match="module|_Package"):
        sendable("qmt", qmt)
    assert "Limits" in sendable("limits", qmt.Limits(requests=1)).text
