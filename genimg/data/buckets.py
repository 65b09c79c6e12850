"""Image files beneath an address in S3, each read as it is asked for; nothing is copied here."""

from genimg.data.archives import Span, divided, tree_path
from genimg.data.remote import files_at, locate, reported
from genimg.images import BrokenImage


class Bucket:
    """A Tree (see genimg.data.archives) of the files beneath an address."""

    nbytes = 0

    def __init__(self, address: str) -> None:
        self._address = address
        start = len(locate(address)[1]) + 1
        files = {file.path[start:]: (file.size, file.mtime_ns) for file in files_at(address)}
        self._states = {name: s for name, s in files.items() if tree_path(name) == name}
        self.paths, self.notes = divided(self._states)

    def read(self, path: str) -> bytes:
        return read_object(self._address, path)

    def span(self, path: str) -> Span:
        return ()

    def state(self, path: str) -> Span:
        return self._states[path]


def read_object(address: str, name: str) -> bytes:
    """The bytes of a file beneath an address.

    Raises BrokenImage where there is none, and InputError where the store refuses: a passing fault
    must not count as a broken image.
    """
    filesystem, where = locate(address)
    with reported(f"{address}/{name}"):
        try:
            with filesystem.open_input_stream(f"{where}/{name}") as stream:
                data: bytes = stream.read()
                return data
        except FileNotFoundError:
            raise BrokenImage("no such file any more") from None
