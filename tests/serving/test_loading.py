"""What a served version costs to load."""

import hashlib
from collections import Counter
from pathlib import Path

from serving.host import Host
from serving.model_settings import ModelSettings


def test_a_host_hashes_each_file_of_a_version_once(registry, monkeypatch):
    counts: Counter[str] = Counter()
    file_digest = hashlib.file_digest

    def counted(file, digest):
        counts[Path(file.name).name] += 1
        return file_digest(file, digest)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    Host(ModelSettings(ref="figures@production"), str(registry)).close()
    assert counts["weights.safetensors"] == 1
    assert set(counts.values()) == {1}
