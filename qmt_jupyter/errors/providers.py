"""What keeps an engine or an upstream from answering."""

from __future__ import annotations

from .base import QmtError


class ProviderError(QmtError):
    """What produces the tokens cannot, or could not."""

    code = "provider"


class EngineMissing(ProviderError):
    """The engine is not installed here."""

    code = "engine-missing"
    default_next_step = "Install it with: pip install 'qmt-jupyter[host]'"


class ModelFileMissing(ProviderError):
    """A model name leads to no file."""

    code = "model-missing"
    default_next_step = "Give a path to a .gguf file, hf:OWNER/NAME/FILE.gguf, or smollm2."


class ModelFileInvalid(ProviderError):
    """The file is there but is not a GGUF model, or not the one that was promised."""

    code = "model-invalid"


class ModelNotLoaded(ProviderError):
    """The engine refused a file that looks right."""

    code = "model-not-loaded"


class OutOfMemory(ProviderError):
    """The model or its context does not fit."""

    code = "out-of-memory"
    default_next_step = "Use a smaller model or context (--context), or fewer --slots."


class DownloadFailed(ProviderError):
    """A model could not be fetched; nothing half is left behind."""

    code = "download-failed"
    default_next_step = "Check the connection and run it again."


class GenerationFailed(ProviderError):
    """The engine gave up in the middle of an answer."""

    code = "generation-failed"


class UpstreamUnreachable(ProviderError):
    """The server behind the host does not answer, or fails."""

    code = "upstream-unreachable"
    default_next_step = "Check that the server runs, then try again."


class UpstreamRefused(ProviderError):
    """The server behind the host does not take the host's key or its requests."""

    code = "upstream-refused"
    default_next_step = "Check the key and the address on the host's side."
