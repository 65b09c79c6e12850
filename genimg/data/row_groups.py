"""Which row groups are in memory."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from genimg.data.shard_files import RowGroup


class GroupCache:
    """Row groups in memory, at most `capacity` bytes of them; the least recently used go first.

    A single group larger than that is held alone. Every method is safe from several threads; a
    group that two of them want is read once.
    """

    def __init__(self, read: Callable[[int], RowGroup], capacity: int) -> None:
        self._read = read
        self._capacity = capacity
        self._held: OrderedDict[int, Future[RowGroup]] = OrderedDict()
        self._lock = Lock()
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="row-groups")
        self._queued: list[Future[RowGroup]] = []
        self.bytes = 0  # in memory now
        self.reads = 0  # since the beginning

    def get(self, group: int) -> RowGroup:
        """A row group, read now unless it is held or being read."""
        with self._lock:
            future = self._held.get(group)
            absent = future is None
            if future is None:
                future = self._held[group] = Future()
                self.reads += 1
            self._held.move_to_end(group)
        if absent:
            self._fill(group, future)
        return future.result()

    def prefetch(self, groups: Iterable[int]) -> None:
        """Read these in the background, one after the other, instead of what was yet to be read."""
        with self._lock:
            for future in self._queued:
                future.cancel()
            absent = [group for group in groups if group not in self._held]
            self._queued = [self._ahead.submit(self.get, group) for group in absent]

    def _fill(self, group: int, future: Future[RowGroup]) -> None:
        try:
            table = self._read(group)
        except BaseException as error:
            with self._lock:
                del self._held[group]  # so that the next one tries again
            future.set_exception(error)
            return
        with self._lock:
            self.bytes += table.nbytes
            for other in [g for g, held in self._held.items() if g != group and held.done()]:
                if self.bytes <= self._capacity:
                    break
                self.bytes -= self._held.pop(other).result().nbytes
            future.set_result(table)
