"""The host's durable record: invites, memberships and requests, in one SQLite file.

One thread owns the connection that writes. What the event loop hands it is gathered into one
transaction at a time, so a write never blocks a stream; who needs certainty awaits the returned
future, which ends when the transaction is on disk. The owner's other processes may add invites
and revocations: the thread notices their commits (SQLite counts them) and reports what changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .. import settings
from ..errors import HomeNotWritable, LedgerDamaged, LedgerNewer, QmtError, RecordsUnwritable
from . import records, seat_records
from .rows import Snapshot

T = TypeVar("T")

FILE = "ledger.db"
# How often the thread looks for commits of other processes: while guests are connected, and else.
LOOK_EVERY = 0.04
LOOK_SELDOM = 0.25
_BUSY_TIMEOUT = 5.0
_MOST_AT_ONCE = 512
_MOST_FAILED = 20_000

log = logging.getLogger(__name__)

Write = Callable[[sqlite3.Connection], T]


def open_for_writing(directory: Path, *, checked: bool = True) -> sqlite3.Connection:
    """Open the ledger in ``directory``, made or brought up to date where needed (0600).

    ``checked``: every page is looked at for damage, which takes a second for a million requests.

    Raises :class:`~qmt_jupyter.errors.LedgerDamaged` after setting a damaged file aside,
    :class:`~qmt_jupyter.errors.LedgerNewer` or :class:`~qmt_jupyter.errors.HomeNotWritable`.
    """
    path = settings.private_directory(directory) / FILE
    try:
        # SQLite gives its other files the mode of this one.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
        connection = sqlite3.connect(
            path, isolation_level=None, timeout=_BUSY_TIMEOUT, check_same_thread=False
        )
    except (OSError, sqlite3.OperationalError) as error:
        raise HomeNotWritable(f"{path} cannot be opened ({error}).") from None
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        if checked and connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("the check found damage")
        _migrate(connection, path)
        records.require_shape(connection)
        # Last, because it writes: what turns out to be damaged stays as it was.
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        connection.close()
        # A table or column that is missing, or stands in the way: the file is something else.
        if "no such" in str(error) or "already exists" in str(error):
            raise _set_aside(path) from None
        raise HomeNotWritable(f"{path} cannot be used ({error}).") from None
    except sqlite3.DatabaseError:
        connection.close()
        raise _set_aside(path) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    if version_of(connection) == len(records.MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read again: another process may have been first.
        version = version_of(connection)
        if version > len(records.MIGRATIONS):
            raise LedgerNewer(f"{path} was written by a newer release (schema {version}).")
        for script in records.MIGRATIONS[version:]:
            for statement in script:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(records.MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def version_of(connection: sqlite3.Connection) -> int:
    """The schema version that a ledger says it has."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _set_aside(path: Path) -> LedgerDamaged:
    """Rename a damaged file and its companions; what they hold stays as it is."""
    name = f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
    number, kept = 1, path.with_name(name)
    while kept.exists():
        number += 1
        kept = path.with_name(f"{name}-{number}")
    try:
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{path}{suffix}").rename(f"{kept}{suffix}")
    except OSError as error:
        return LedgerDamaged(
            f"{path} is damaged and could not be set aside ({error.strerror or error}).",
            next_step="Move it away, then start again.",
        )
    return LedgerDamaged(f"{path} is damaged; it has been kept as {kept.name}.")


def open_for_reading(directory: Path) -> sqlite3.Connection | None:
    """Open the ledger in ``directory`` for reading, while a host writes it or not; None: no file.

    One of an older release is brought up to date first.

    Raises :class:`~qmt_jupyter.errors.LedgerDamaged` (nothing is moved),
    :class:`~qmt_jupyter.errors.LedgerNewer` or :class:`~qmt_jupyter.errors.HomeNotWritable`.
    """
    path = (directory / FILE).absolute()
    if not path.exists():
        return None
    connection = None
    try:
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=_BUSY_TIMEOUT
        )
        version = version_of(connection)
        if version > len(records.MIGRATIONS):
            raise LedgerNewer(f"{path} was written by a newer release (schema {version}).")
        if 0 < version < len(records.MIGRATIONS):
            # An older release's, and no host has been started since: the tables are not all there.
            open_for_writing(directory, checked=False).close()
        records.require_shape(connection)
    except (sqlite3.Error, LedgerNewer) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, LedgerNewer):
            raise
        if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
            raise HomeNotWritable(f"{path} cannot be read ({error}).") from None
        raise LedgerDamaged(
            f"{path} is damaged.", next_step="Starting the host sets it aside."
        ) from None
    return connection


@dataclass
class _Order:
    """Something to write, and whom to tell."""

    write: Write[Any]
    done: asyncio.Future[Any] | None = None
    durable: bool = False
    result: Any = None
    error: Exception | None = None


class Ledger:
    """The host's writer. Made by :meth:`open`; all calls come from the event loop."""

    def __init__(
        self, connection: sqlite3.Connection, on_change: Callable[[records.Changes], None]
    ) -> None:
        self._connection = connection
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._data_version = self._read_data_version()
        self._seen = records.Changes.known(connection)
        self._path = Path(connection.execute("PRAGMA database_list").fetchone()[2])
        self._inode = self._path.stat().st_ino
        self._is_gone = False
        self._failed: list[_Order] = []
        self._closed = False
        self._ended = asyncio.Event()
        self.look_every = LOOK_SELDOM
        self._thread = threading.Thread(target=self._run, name="qmt-ledger", daemon=True)

    @classmethod
    async def open(
        cls, directory: Path, on_change: Callable[[records.Changes], None], now: float
    ) -> tuple[Ledger, Snapshot]:
        """Open the ledger, end what a host that died left running, and read it all.

        ``on_change`` is called in the loop with what is new when another process has written;
        what this one wrote may be among it. Raises like :func:`open_for_writing`.
        """

        def prepare() -> tuple[sqlite3.Connection, Snapshot]:
            connection = open_for_writing(directory)
            try:
                records.close_lost(connection, now)
                seat_records.forget_unused(connection, now)
                return connection, records.read(connection, now - records.MINUTE, now)
            except sqlite3.Error as error:
                connection.close()
                raise HomeNotWritable(f"{directory / FILE} cannot be used ({error}).") from None

        connection, snapshot = await asyncio.to_thread(prepare)
        ledger = cls(connection, on_change)
        ledger._thread.start()
        return ledger, snapshot

    @property
    def directory(self) -> Path:
        """Where the file is."""
        return self._path.parent

    def post(self, write: Write[Any]) -> None:
        """Write soon, in order; what fails is written with a later transaction."""
        if not self._closed:
            self._orders.put(_Order(write))

    def write(self, write: Write[T], *, durable: bool = False) -> asyncio.Future[T]:
        """Write soon; the future ends when it is committed, with what ``write`` returned.

        Committed survives the end of this process; ``durable`` survives the machine's too. The
        future raises what ``write`` raised, and
        :class:`~qmt_jupyter.errors.RecordsUnwritable` where the file cannot be written.
        """
        done: asyncio.Future[T] = self._loop.create_future()
        # Whoever asked may have been cancelled: then nobody looks at the error.
        done.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        if self._closed:
            done.set_exception(RecordsUnwritable("The host has closed its records."))
        else:
            self._orders.put(_Order(write, done, durable))
        return done

    async def close(self) -> None:
        """Write what is waiting and close the file; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._orders.put(None)
        # Not joined in a thread: at the interpreter's end none can be started.
        await self._ended.wait()
        self._thread.join(timeout=1.0)

    # In the ledger's thread ------------------------------------------------------------------

    def _run(self) -> None:
        looked = 0.0
        going = True
        try:
            while going:
                orders, going = self._gather()
                if orders:
                    self._commit(orders)
                    self._loop_soon(_tell, orders)
                now = time.monotonic()
                if now - looked >= self.look_every:
                    looked = now
                    self._look()
            self._commit_what_failed()
        finally:
            self._closed = True
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._loop_soon(self._ended.set)

    def _gather(self) -> tuple[list[_Order], bool]:
        orders: list[_Order] = []
        try:
            order = self._orders.get(timeout=self.look_every)
            while order is not None:
                orders.append(order)
                if len(orders) >= _MOST_AT_ONCE:
                    return orders, True
                order = self._orders.get_nowait()
        except queue.Empty:
            return orders, True
        return orders, False

    def _commit(self, orders: list[_Order]) -> None:
        """Write the orders in one transaction, after those that failed with an earlier one."""
        again, self._failed = self._failed, []
        try:
            if self._is_gone:
                raise sqlite3.OperationalError("the file is not there any more")
            durable = any(order.durable for order in orders)
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            for order in (*again, *orders):
                self._carry_out(order)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            log.error("the ledger could not be written: %s", error)
            # Nobody waits for these, so nobody would hand them in again.
            kept = [*again, *(order for order in orders if order.done is None)]
            self._failed = kept[-_MOST_FAILED:]
            for order in orders:
                order.error = RecordsUnwritable("The host cannot write its records.")

    def _carry_out(self, order: _Order) -> None:
        """One order, undone by itself where it fails for a reason of its own."""
        self._connection.execute("SAVEPOINT one")
        try:
            order.result = order.write(self._connection)
        except sqlite3.OperationalError:  # the disk, a lock: the others fail as well
            raise
        except Exception as error:
            self._connection.execute("ROLLBACK TO one")
            order.error = (
                error
                if isinstance(error, QmtError)
                else RecordsUnwritable("The host cannot record this.")
            )
            if not isinstance(error, QmtError):
                log.error("the ledger does not take this: %r", error)
        self._connection.execute("RELEASE one")

    def _commit_what_failed(self) -> None:
        for pause in (0.0, 0.2, 1.0):
            if self._failed and not self._is_gone:
                time.sleep(pause)
                self._commit([])

    def _is_same_file(self) -> bool:
        """Whether the path still leads to the file that is open."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def _read_data_version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def _look(self) -> None:
        try:
            self._is_gone = self._is_gone or not self._is_same_file()
            if self._failed:
                self._commit([])
            version = self._read_data_version()
            if version == self._data_version:
                return
            changes = records.Changes.since(self._connection, self._seen)
            self._data_version = version
        except Exception as error:
            log.error("the ledger could not be read: %r", error)
            return
        if changes:
            self._loop_soon(self._on_change, changes)

    def _loop_soon(self, what: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to tell
            self._loop.call_soon_threadsafe(what, *arguments)


def _tell(orders: list[_Order]) -> None:
    for order in orders:
        if order.done is None or order.done.done():
            continue
        if order.error is not None:
            order.done.set_exception(order.error)
        else:
            order.done.set_result(order.result)
