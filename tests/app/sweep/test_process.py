"""Processes of a sweep: their end when the sweep ends, and their GPU. One process plays all of them."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from sqakd.app.sweep import process
from sqakd.app.sweep.job import run_job
from sqakd.app.sweep.process import claim_gpu
from sqakd.app.sweep.store import JobStore


def test_orphaned_process_lets_its_job_save_and_then_ends(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "POLL_SECONDS", 0.02)
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda *_: ended.set())
    parent = [os.getppid()]
    monkeypatch.setattr(os, "getppid", lambda: parent[0])
    asked_to_stop = threading.Event()
    handler = signal.signal(signal.SIGTERM, lambda *_: asked_to_stop.set())

    def lose_parent() -> float:
        parent[0] = 1
        return float(asked_to_stop.wait(5) and not ended.is_set())

    try:
        assert run_job(store, 0, lambda: float(asked_to_stop.wait(0.2)), parent=parent[0]) == 0.0
        assert run_job(store, 1, lose_parent, parent=parent[0]) == 1.0
        assert ended.wait(5)
    finally:
        signal.signal(signal.SIGTERM, handler)


def claim(monkeypatch: pytest.MonkeyPatch, folder: Path, gpus: list[str]) -> tuple[str, list[FileLock]]:
    """Claim a GPU as a new process would; return the GPU and the lock that the process would hold."""
    locks: list[FileLock] = []
    monkeypatch.setattr(process, "_gpu_locks", locks)
    claim_gpu(folder, gpus, 4)
    device = os.environ["CUDA_VISIBLE_DEVICES"]
    claim_gpu(folder, gpus, 4)  # the next job of the same process
    assert os.environ["CUDA_VISIBLE_DEVICES"] == device
    assert len(locks) == 1
    return device, locks


def test_processes_share_the_gpus_equally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    claims = [claim(monkeypatch, tmp_path, ["4", "GPU-7"]) for _ in range(4)]
    assert sorted(device for device, _ in claims) == ["4", "4", "GPU-7", "GPU-7"]
    device, locks = claims[2]
    locks[0].release()  # the system does this when a process is killed
    assert claim(monkeypatch, tmp_path, ["4", "GPU-7"])[0] == device


def test_single_gpu_is_shared_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    claim_gpu(tmp_path, ["0"], 4)
    claim_gpu(tmp_path, [], 4)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert list(tmp_path.iterdir()) == []
