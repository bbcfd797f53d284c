"""The child process that fetches one file from a model hub.

Run as ``python -m qmt_jupyter.providers.hub_fetch OWNER/NAME FILE DIRECTORY``. It writes lines
``Progress DONE of TOTAL`` in bytes, as pip does, and ends with 0 or a :class:`Failure`. Imports
``huggingface_hub``, which nothing else in the package does.
"""

from __future__ import annotations

import enum
import errno
import inspect
import sys
from typing import Any


class Failure(enum.IntEnum):
    """Exit statuses, each with a sentence of its own at the parent."""

    NO_CLIENT = 10
    NOT_FOUND = 11
    NOT_ALLOWED = 12
    NETWORK = 13
    DISK = 14


_DISK = frozenset({errno.ENOSPC, errno.EACCES, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)})


class _Lines:
    """Stands in for the progress bar that the hub's client draws."""

    def __init__(self, *_: Any, total: int | None = None, initial: int = 0, **__: Any) -> None:
        self.total = total
        self.n = initial

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: float | None = 1) -> None:
        self.n += int(n or 0)
        if self.total:
            sys.stdout.write(f"Progress {self.n} of {self.total}\n")

    def __getattr__(self, _name: str) -> Any:
        # A bar has many more methods; none of them matters here.
        return lambda *_, **__: None


def fetch(repository: str, file_name: str, directory: str) -> int:
    """Fetch one file and return an exit status."""
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError:
        return Failure.NO_CLIENT
    arguments: dict[str, Any] = {"local_dir": directory}
    # Clients before 1.2 take no bar; they work as well, unseen.
    if "tqdm_class" in inspect.signature(hub.hf_hub_download).parameters:
        arguments["tqdm_class"] = _Lines
    try:
        hub.hf_hub_download(repository, file_name, **arguments)
    except errors.GatedRepoError:
        return Failure.NOT_ALLOWED
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        return Failure.NOT_FOUND
    except errors.LocalEntryNotFoundError:
        # What the client says when it can neither ask the hub nor find the file here.
        return Failure.NETWORK
    except errors.EntryNotFoundError:
        return Failure.NOT_FOUND
    except errors.HfHubHTTPError:
        return Failure.NETWORK
    except OSError as error:
        return Failure.DISK if error.errno in _DISK else Failure.NETWORK
    return 0


if __name__ == "__main__":
    sys.exit(fetch(*sys.argv[1:4]))
