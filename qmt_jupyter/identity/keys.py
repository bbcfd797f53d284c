"""Identities: Ed25519 key pairs, the files that hold them, and the lock on a host's.

A key file holds the 32-byte seed, in hex and a newline. It is created once (0600, atomically)
and never overwritten: a damaged one is an error.
"""

from __future__ import annotations

from pathlib import Path

import filelock
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from .. import settings
from ..errors import HomeNotWritable, IdentityDamaged, IdentityInUse
from . import peer_id

SIGNATURE_SIZE = 64
_LOCK_PATIENCE = 0.1


class Identity:
    """An Ed25519 key pair. Its repr shows the peer id only; the seed leaves by :attr:`seed`."""

    __slots__ = ("_key", "peer_id", "public_key")

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.public_key: bytes = bytes(self._key.verify_key)
        self.peer_id: str = peer_id.to_text(self.public_key)

    def __repr__(self) -> str:
        return f"<Identity {self.peer_id}>"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("an identity cannot be pickled")

    @classmethod
    def fresh(cls) -> Identity:
        """A new random identity that no file holds."""
        return cls(bytes(SigningKey.generate()))

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes, for the transport's endpoint alone."""
        return bytes(self._key)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of ``message``."""
        return bytes(self._key.sign(message).signature)


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is ``public_key``'s over ``message``. Never raises."""
    try:
        VerifyKey(public_key).verify(message, signature)
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True


def load_or_create(path: Path) -> Identity:
    """The identity in the file ``path``, created on first use.

    Two processes that start at once end with the same identity. Raises
    :class:`~qmt_jupyter.errors.IdentityDamaged` if the file holds something else and
    :class:`~qmt_jupyter.errors.HomeNotWritable` if it cannot be made.
    """
    settings.private_directory(path.parent)
    try:
        with filelock.FileLock(f"{path}.lock", timeout=10, mode=0o600):
            if not path.exists():
                identity = Identity.fresh()
                settings.write_private(path, identity.seed.hex().encode() + b"\n")
                return identity
            path.chmod(0o600)
            text = path.read_bytes()
    except filelock.Timeout:
        raise HomeNotWritable(f"Another process holds {path}.lock.") from None
    except OSError as error:
        raise HomeNotWritable(f"{path} cannot be read ({error.strerror or error}).") from None
    try:
        seed = bytes.fromhex(text.decode("ascii").strip())
        return Identity(seed)
    except (ValueError, TypeError):
        raise IdentityDamaged(f"{path} does not hold a key.") from None


class HostLock:
    """Holds a host's identity for this process: one host per identity, on this machine."""

    def __init__(self, directory: Path) -> None:
        settings.private_directory(directory)
        # A moment's patience: somebody may just be looking whether it is held.
        self._lock = filelock.FileLock(
            str(directory / "lock"), timeout=_LOCK_PATIENCE, is_singleton=False, mode=0o600
        )

    def acquire(self) -> None:
        """Take the lock or raise :class:`~qmt_jupyter.errors.IdentityInUse`."""
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise IdentityInUse("Another host already runs on this identity.") from None
        except OSError as error:
            raise HomeNotWritable(
                f"{self._lock.lock_file} cannot be written ({error.strerror or error})."
            ) from None

    def is_held(self) -> bool:
        """Whether a host runs on this identity now, here or in another process."""
        try:
            self._lock.acquire(timeout=0)
        except (filelock.Timeout, OSError):
            return True
        self._lock.release()
        return False

    def release(self) -> None:
        """Give it back; safe to call twice."""
        self._lock.release(force=True)
