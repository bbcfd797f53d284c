"""The web that model files come from, as the providers' tests have it."""

from tests.providers.conftest import web

__all__ = ["web"]
