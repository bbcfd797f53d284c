"""Where files live, from the environment."""

from __future__ import annotations

from qmt_jupyter.settings import Settings


def test_a_relative_folder_is_the_same_from_everywhere(monkeypatch, tmp_path):
    """A child process with another working directory once looked for the model elsewhere."""
    monkeypatch.setenv("QMT_HOME", "home")
    monkeypatch.setenv("QMT_MODELS", "models")
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environment()
    monkeypatch.chdir(tmp_path.parent)
    assert settings.host_dir == tmp_path / "home" / "host"
    assert settings.models_dir == tmp_path / "models"
