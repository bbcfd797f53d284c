"""Where files live, from the environment."""

from __future__ import annotations

import pytest

from qmt_jupyter import flags
from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.notebook import structured
from qmt_jupyter.settings import Settings, user_path


def test_a_relative_folder_is_the_same_from_everywhere(monkeypatch, tmp_path):
    """A child process with another working directory once looked for the model elsewhere."""
    monkeypatch.setenv("QMT_HOME", "home")
    monkeypatch.setenv("QMT_MODELS", "models")
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environment()
    monkeypatch.chdir(tmp_path.parent)
    assert settings.host_dir == tmp_path / "home" / "host"
    assert settings.models_dir == tmp_path / "models"


@pytest.mark.parametrize("given", ["~no-such-user-here/x.json", "a\0b.json"])
def test_what_is_no_path_is_one_sentence(given):
    for opened in (user_path, lambda file: flags.link_from(None, file)):
        with pytest.raises(OptionInvalid, match="is no path on this machine"):
            opened(given)
    with pytest.raises(OptionInvalid):
        structured.form(given, {})
