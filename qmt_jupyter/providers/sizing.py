"""How large a local engine's contexts and steps are, whichever engine it is."""

from __future__ import annotations

from ..errors import OptionInvalid
from .gguf import GgufHead

DEFAULT_CONTEXT = 4096
# A text to be embedded is taken in one step, whose memory grows with it.
EMBEDDING_CONTEXT = 2048
_LEAST_CONTEXT = 256  # the engine rounds a slot's context up to a multiple of this
_MOST_SLOTS = 64

# A step on the CPU should take about this long: it is how late a stop in the middle of a prompt
# takes effect, and how long others wait for their next token meanwhile.
_STEP_SECONDS = 0.3
# Measured with SmolLM2-135M (98 MB): 190 prompt tokens a second on one core.
_BYTES_PER_CORE_SECOND = 190 * 98_000_000
_STEP_RANGE = (32, 512)


def check_sizes(
    *, slots: int, context: int | None, gpu_layers: int | None, threads: int | None
) -> None:
    """Refuse what no engine can be set up with. Raises OptionInvalid; None is the engine's own."""
    _check("slots", slots, 1, _MOST_SLOTS)
    _check("context", context, _LEAST_CONTEXT, None)
    _check("gpu_layers", gpu_layers, 0, None)
    _check("threads", threads, 1, 512)


def _check(option: str, value: int | None, least: int, most: int | None) -> None:
    if value is None:
        return
    if value < least or (most is not None and value > most):
        span = f"between {least} and {most}" if most is not None else f"at least {least}"
        raise OptionInvalid(f"{option} must be {span}, not {value}.")


def fitted_context(
    name: str, head: GgufHead, wanted: int | None, usual: int = DEFAULT_CONTEXT
) -> tuple[int, list[str]]:
    """A slot's context in tokens for the model ``name``, and what is to be said about it.

    ``usual`` is taken where none is wanted and the model was trained for as much.
    """
    notices = []
    context = wanted or min(usual, head.context or usual)
    if head.context is not None and context > head.context:
        notices.append(
            f"{name} was trained for {head.context} tokens: its context is that, not {context}."
        )
        context = head.context
    return max(_LEAST_CONTEXT, context // _LEAST_CONTEXT * _LEAST_CONTEXT), notices


def cpu_step(head: GgufHead, threads: int) -> int:
    """How many prompt tokens an engine on the CPU takes at once: a power of two."""
    cores = threads if threads > 0 else 2
    tokens = _STEP_SECONDS * cores * _BYTES_PER_CORE_SECOND / max(1, head.size)
    least, most = _STEP_RANGE
    step = least
    while step * 2 <= min(tokens, most):
        step *= 2
    return step
