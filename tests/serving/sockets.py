"""At which addresses of this machine processes listen, as /proc says."""

import ipaddress
import re
import socket
from collections.abc import Iterable
from pathlib import Path

_LISTENS = "0A"


def listening(pids: Iterable[int]) -> set[tuple[str, int]]:
    """(address, port) of every TCP socket on which one of them takes connections."""
    inodes = {inode for pid in pids for inode in _sockets(pid)}
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.add((_address(address, family), int(port, 16)))
    return found


def _sockets(pid: int) -> list[str]:
    inodes = []
    try:
        for each in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes += re.findall(r"^socket:\[(\d+)\]$", str(each.readlink()))
            except OSError:  # closed meanwhile
                continue
    except OSError:  # it has ended
        pass
    return inodes


def _address(text: str, family: socket.AddressFamily) -> str:
    """Of words of 32 bits, each as this machine has them in memory."""
    data = bytes.fromhex(text)
    words = b"".join(data[i : i + 4][::-1] for i in range(0, len(data), 4))
    found = ipaddress.ip_address(socket.inet_ntop(family, words))
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)
