from __future__ import annotations

from pathlib import Path

import pytest

from sqakd.app.sweep.store import JobStore


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    """A sweep of three jobs that wait."""
    return JobStore.create(tmp_path / ".sweeps", [(number, f"seed={number}") for number in range(3)])
