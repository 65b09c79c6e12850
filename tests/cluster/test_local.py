"""What a cluster that starts here leaves readable."""

import stat
from pathlib import Path

from cluster.local import _tighten_token


def test_the_token_of_rays_ports_is_its_owners_alone(tmp_path: Path, monkeypatch):
    token = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    _tighten_token()  # there is none
    token.write_text("secret")
    token.chmod(0o644)  # as Ray writes it
    _tighten_token()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
