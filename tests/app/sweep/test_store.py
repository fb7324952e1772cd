"""States of a sweep's jobs when processes are killed."""

from __future__ import annotations

from dataclasses import replace

from sqakd.app.sweep.store import DONE, FAILED, RUNNING, SET_ASIDE, WAITING, JobStore


def test_lost_job_is_retried_then_set_aside_then_failed(store: JobStore) -> None:
    states = []
    for _ in range(3):
        store.write(replace(store.jobs()[0], state=RUNNING))
        store.write(replace(store.jobs()[1], state=DONE))
        assert [job.number for job in store.mark_lost(3)] == [0]
        states.append([job.state for job in store.jobs()])
    assert states == [[WAITING, DONE, WAITING], [SET_ASIDE, DONE, WAITING], [FAILED, DONE, WAITING]]
    assert "killed 3 times" in store.jobs()[0].reason
    assert store.mark_lost(3) == []
