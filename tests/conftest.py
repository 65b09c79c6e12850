"""Fixtures that every room's tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("genimg", deadline=None)  # the machine may be busy
settings.load_profile("genimg")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets that lie beside a checkout on the project's own machines."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not here ({folder})")
    return folder
