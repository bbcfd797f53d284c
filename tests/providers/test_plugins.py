"""Providers of other packages: found by their entry points, and whatever is wrong is one sentence."""

from __future__ import annotations

import asyncio
import sys

import pytest

from qmt_jupyter.errors import EngineMissing, ModelNotLoaded, OptionInvalid
from qmt_jupyter.providers import plugins
from qmt_jupyter.providers.base import Options
from qmt_jupyter.providers.echo import Echo
from qmt_jupyter.providers.select import load_provider
from qmt_jupyter.settings import Settings

CODE = """
import asyncio
from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.providers.base import Model, Provider
from qmt_jupyter.providers.echo import Echo

class Shout(Echo):
    closed = []
    def __init__(self, rest, options):
        super().__init__(slots=options.slots)
        self.rest, self.options = rest, options
    async def aclose(self):
        self.closed.append(self)

async def later(rest, options):
    await asyncio.sleep(0)
    return Shout(rest, options)

def refuses(rest, options):
    raise OptionInvalid("There is no such model.", next_step="Name another.")

def fails(rest, options):
    raise KeyError("a\\x1b[31m key\\n" + "x" * 500)

def gives(rest, options):
    return eval(rest)

class Odd(Shout):
    models, slots = (), 1
    def __init__(self, rest, options):
        vars(type(self))  # a class of its own for each
        self.__class__ = type("Odd", (Odd,), eval(rest))
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs packages that bring plugins, as pip would leave them."""

    def install(points, name="some-package", code=CODE, module="some_plugin"):
        site = tmp_path / name
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{point} = {target}" for point, target in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{plugins.GROUP}]", *lines]))
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, module, raising=False)

    yield install
    sys.modules.pop("some_plugin", None)


def load(model, tmp_path, **options):
    return asyncio.run(load_provider(model, Options(**options), Settings(tmp_path)))


@pytest.mark.parametrize("target", ["Shout", "later"])
def test_a_plugin_gets_what_stands_after_its_name_and_the_options(package, tmp_path, target):
    package({"shout": f"some_plugin:{target}"})
    given = {"slots": 3, "context": 512, "gpu_layers": 1, "threads": 2}
    provider = load("shout:a:b/c d", tmp_path, **given)
    assert isinstance(provider, Echo)
    assert (provider.rest, provider.options) == ("a:b/c d", Options(**given))
    assert load("shout:", tmp_path).rest == ""


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("shout:x", ("shout", "x")),
        ("my-plugin.v2:", ("my-plugin.v2", "")),
        ("smollm2", None),
        ("hf:OWNER/NAME/file.gguf", None),
        ("HF:OWNER/NAME/file.gguf", None),
        ("https://example.com/v1", None),
        (r"C:\models\a.gguf", None),
        ("./a:b.gguf", None),
        ("/models/a:b.gguf", None),
        (":x", None),
        ("x" * 100_000 + ":y", ("x" * 100_000, "y")),
        ("nul\x00:x", None),
    ],
)
def test_what_is_a_plugins_name_and_what_is_not(model, found):
    assert plugins.plugin_in(model) == found


@pytest.mark.skipif(sys.platform == "win32", reason="no file is called so there")
def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shout:x").touch()
    assert plugins.plugin_in("shout:x") is None


def test_a_plugin_that_is_not_there_is_said_with_those_that_are(package, tmp_path):
    package({"shout": "some_plugin:Shout", "other": "some_plugin:later"})
    with pytest.raises(EngineMissing) as raised:
        load("whisper:x", tmp_path)
    assert "no provider plugin whisper" in raised.value.sentence
    assert "other, shout" in raised.value.sentence


def test_two_packages_with_one_name_are_told_apart_by_nobody(package, tmp_path):
    package({"shout": "some_plugin:Shout"})
    package({"shout": "some_plugin:Shout"}, name="other-package")
    with pytest.raises(OptionInvalid, match="other-package, some-package"):
        load("shout:x", tmp_path)


@pytest.mark.parametrize(
    ("target", "rest", "said"),
    [
        ("some_plugin:nothing_there", "", "does not load (AttributeError"),
        ("no_such_module:x", "", "does not load (ModuleNotFoundError"),
        ("some_plugin:fails", "", "failed (KeyError"),
        ("some_plugin:gives", "5", "gave a int and no provider"),
        ("some_plugin:gives", "None", "gave a NoneType and no provider"),
        ("some_plugin:gives", "1 / 0", "failed (ZeroDivisionError: division by zero)"),
        ("some_plugin:Odd", "{}", "has 0 models"),
        ("some_plugin:Odd", "{'models': (5,)}", "a model without a name"),
        ("some_plugin:Odd", "{'models': (Model(''),)}", "a model without a name"),
        ("some_plugin:Odd", "{'models': (Model('x' * 201),)}", "a model without a name"),
        ("some_plugin:Odd", "{'models': (Model('a\\nb'),)}", "whose name cannot be printed"),
        ("some_plugin:Odd", "{'models': (Model('a'), Model('a'))}", "two models of one name"),
        ("some_plugin:Odd", "{'models': (Model('a'),), 'slots': 0}", "runs 0 requests"),
        ("some_plugin:Odd", "{'models': (Model('a'),), 'slots': True}", "runs True requests"),
        ("some_plugin:Odd", "{'models': (Model('a'),), 'slots': '4'}", "runs '4' requests"),
        ("some_plugin:Odd", "{'models': property(lambda s: 1 / 0)}", "cannot say what it offers"),
    ],
)
def test_a_broken_plugin_ends_in_one_sentence(package, tmp_path, target, rest, said):
    package({"shout": target})
    with pytest.raises(ModelNotLoaded) as raised:
        load(f"shout:{rest}", tmp_path)
    sentence = raised.value.sentence
    assert said in sentence
    assert sentence.startswith("The provider plugin shout of some-package ")
    assert sentence.isprintable()
    assert len(sentence) < 400
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_one_that_is_refused_for_what_it_says_is_closed(package, tmp_path):
    package({"shout": "some_plugin:Odd"})
    with pytest.raises(ModelNotLoaded):
        load("shout:{}", tmp_path)
    assert len(sys.modules["some_plugin"].Shout.closed) == 1


def test_a_plugins_own_clear_error_comes_through(package, tmp_path):
    package({"shout": "some_plugin:refuses"})
    with pytest.raises(OptionInvalid, match="There is no such model. Name another."):
        load("shout:x", tmp_path)


def test_a_module_that_fails_when_it_is_loaded_is_said(package, tmp_path):
    package({"shout": "broken_plugin:x"}, code="raise OSError('no libfoo')", module="broken_plugin")
    with pytest.raises(ModelNotLoaded, match="OSError: no libfoo"):
        load("shout:x", tmp_path)
