"""What ``docs/security.md`` says holds a promise is there."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT, text

PAGE = ROOT / "docs" / "security.md"


def test_every_test_that_holds_a_promise_exists():
    named = re.findall(r"`([a-z]+/test_[a-z_0-9]+\.py)(?:::(\w+))?[`:]", text(PAGE))
    assert len(named) > 50
    for path, test in named:
        file = ROOT / "tests" / path
        assert file.exists(), path
        assert not test or f"def {test}(" in text(file), test
