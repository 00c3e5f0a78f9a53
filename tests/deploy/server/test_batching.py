import sys
import threading

import numpy as np
import pytest

from deploy.extractor import Outputs
from deploy.server.batching import Batcher

FOREVER = 1e6  # seconds


def doubled(rows):
    return Outputs(rows * 2, margins=rows[:, 0])


@pytest.fixture
def batcher():
    """Make batchers; they are closed in the end."""
    made = []

    def make(run, batch_size=4, max_delay=0.0):
        made.append(Batcher(run, batch_size=batch_size, max_delay=max_delay))
        return made[-1]
    yield make
    for each in made:
        each.close()


def test_rows_that_wait_share_a_batch_and_each_gets_its_own(batcher):
    sizes = []

    def run(rows):
        sizes.append(len(rows))
        return doubled(rows)

    submit = batcher(run, max_delay=FOREVER).submit
    jobs = [submit(np.full((n, 2), n, np.float32)) for n in (1, 2)]
    assert not any(job.done() for job in jobs)
    jobs.append(submit(np.full((1, 2), 7, np.float32)))  # full
    for job, n in zip(jobs, (1, 2, 7), strict=True):
        outputs = job.result(60)
        assert (outputs.embeddings == 2 * n).all() and (outputs.margins == n).all() and outputs.logits is None
    assert [len(job.result(60).embeddings) for job in jobs] == [1, 2, 1] and sizes == [4]


def test_a_batch_is_never_larger_than_the_model_computes_at_once(batcher):
    sizes, begun, go = [], threading.Event(), threading.Event()

    def run(rows):
        sizes.append(len(rows))
        begun.set()
        go.wait(60)
        return doubled(rows)

    submit = batcher(run).submit
    jobs = [submit(np.zeros((1, 2), np.float32))]
    begun.wait(60)
    jobs += [submit(np.zeros((n, 2), np.float32)) for n in (3, 3, 1, 4)]  # all of these wait for the first
    go.set()
    assert [len(job.result(60).embeddings) for job in jobs] == [1, 3, 3, 1, 4]
    assert sizes == [1, 3, 4, 4]
    for rows in (0, 5):
        with pytest.raises(ValueError, match=f"rows: 1 to 4 expected, got {rows}"):
            submit(np.zeros((rows, 2)))


def test_what_is_cancelled_is_not_computed_and_takes_no_room(batcher):
    seen = []

    def run(rows):
        seen.extend(rows[:, 0])
        return doubled(rows)

    waiting = batcher(run, batch_size=2, max_delay=FOREVER)
    for _ in range(3):
        rows = np.array([[1.0]])
        job = waiting.submit(rows)
        assert job.cancel() and sys.getrefcount(rows) == 2  # this name, and the call's own
    jobs = [waiting.submit(np.array([[n]])) for n in (2.0, 3.0)]  # two that nobody cancelled are a batch
    assert [job.result(60).embeddings for job in jobs] == [4, 6] and seen == [2, 3]


def test_jobs_may_be_cancelled_at_any_time(batcher):
    submit = batcher(doubled, batch_size=3, max_delay=1e-4).submit
    jobs = [submit(np.full((1, 2), n, np.float32)) for n in range(300)]
    cancelled = [job.cancel() for job in jobs]
    assert all(gone or (job.result(60).embeddings == 2 * n).all()
               for n, (job, gone) in enumerate(zip(jobs, cancelled, strict=True)))
    assert submit(np.array([[1.0, 1.0]])).result(60).embeddings.tolist() == [[2, 2]]


def test_an_error_is_of_its_batch_alone(batcher):
    def run(rows):
        if rows.min() < 0:
            raise ArithmeticError("below 0")
        return doubled(rows)

    submit = batcher(run).submit
    with pytest.raises(ArithmeticError, match="below 0"):
        submit(np.array([[-1.0]])).result(60)
    assert submit(np.array([[1.0]])).result(60).embeddings == 2


@pytest.mark.parametrize("end", [Batcher.hurry, Batcher.close])
def test_in_the_end_nobody_waits_for_others(batcher, end):
    patient = batcher(doubled, max_delay=FOREVER)
    job = patient.submit(np.array([[1.0]]))
    end(patient)
    assert job.result(60).embeddings == 2


def test_after_the_end_rows_are_refused(batcher):
    closed = batcher(doubled)
    closed.close()
    with pytest.raises(RuntimeError):
        closed.submit(np.array([[1.0]]))
