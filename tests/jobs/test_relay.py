"""Lines of other processes on the command's standard output."""

import subprocess
import sys
from pathlib import Path

from jobs.server.relay import relayed


def test_what_several_processes_write_comes_out_whole(capfd):
    write = "import os, sys; f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)\n"
    write += "for i in range(300): os.write(f, f'{sys.argv[2] * 200} {i}\\n'.encode())"
    with relayed() as path:
        assert Path(path).stat().st_mode & 0o777 == 0o600
        writers = [subprocess.Popen([sys.executable, "-c", write, path, of]) for of in "abc"]
        assert [each.wait() for each in writers] == [0, 0, 0]
    assert not Path(path).exists()
    lines = capfd.readouterr().out.splitlines()
    assert sorted(lines) == sorted(f"{of * 200} {i}" for of in "abc" for i in range(300))
