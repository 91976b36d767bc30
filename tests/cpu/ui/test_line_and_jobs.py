"""Line, Job and Jobs: who is next, what is told, what ends a run."""

import threading
import time

import pytest

from sparsediff.kernels.errors import SparseError
from sparsediff.step_watch import RunStopped
from sparsediff.ui import job as job_module
from sparsediff.ui.job import Job
from sparsediff.ui.jobs import Jobs
from sparsediff.ui.line import Line
from sparsediff.ui.news import News

SOON = 30  # seconds that a loaded machine may need


def test_the_line_serves_in_the_order_of_coming():
    line, served, told = Line(), [], {n: [] for n in range(3)}
    all_there = threading.Event()

    def work(number):
        with line.turn(told[number].append):
            served.append(number)
            assert all_there.wait(SOON)

    threads = []
    for number in range(3):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        wait_for(lambda count=number + 1: len(line) == count)
    wait_for(lambda: [told[n][:1] for n in range(3)] == [[0], [1], [2]])
    all_there.set()
    for thread in threads:
        thread.join(SOON)
    assert served == [0, 1, 2]
    assert [told[n][0] for n in range(3)] == [0, 1, 2]
    assert all(told[n][-1] == 0 for n in range(3))
    assert len(line) == 0


def test_who_gives_up_leaves_the_line():
    line = Line()

    def give_up(before):
        if before:
            raise RunStopped

    with line.turn(lambda _: None):
        with pytest.raises(RunStopped), line.turn(give_up):
            pytest.fail("it was not the turn of this one")
        assert len(line) == 1
    assert len(line) == 0


def test_an_error_ends_the_turn():
    line = Line()
    with pytest.raises(ValueError, match="broken"), line.turn(lambda _: None):
        raise ValueError("broken")
    with line.turn(lambda _: None):
        assert len(line) == 1


def test_a_job_tells_and_has_an_outcome():
    def work(tell):
        tell(News(phase="Dense", step=1, total=2))
        return 7

    job = Job(work)
    assert [str(news) for news in job.news()] == ["Dense: step 1 of 2"]
    assert job.wait(SOON)
    assert (job.outcome, job.error) == (7, "")


def endless(tell):
    while True:
        tell(News(phase="Sparse"))
        time.sleep(0.005)


def test_stop_ends_a_job_at_its_next_news():
    job = Job(endless)
    for _ in job.news():
        job.stop()
    assert job.wait(SOON)
    assert job.outcome is None
    assert job.error == "Stopped. The model is as it was before."


def test_who_stops_reading_ends_the_job():
    job = Job(endless)
    news = job.news()
    next(news)
    assert job.running
    news.close()
    assert job.wait(SOON)


def test_quick_steps_are_passed_over(monkeypatch):
    monkeypatch.setattr(job_module, "PACE", 0.25)
    steps = 100

    def work(tell):
        for step in range(1, steps + 1):
            tell(News(phase="Dense", step=step, total=steps))
            time.sleep(0.001)

    job = Job(work)
    told = [news.step for news in job.news()]
    assert told == sorted(told)
    assert 2 <= len(told) <= steps // 4
    assert told[-1] == steps  # the last is always told


def test_errors_become_sentences():
    def refused(_):
        raise SparseError("Too large. Use fewer frames.")

    def broken(_):
        raise KeyError("secret/path")

    for work, said in ((refused, "Too large. Use fewer frames."), (broken, "KeyError")):
        job = Job(work)
        assert not list(job.news())
        assert said in job.error
        assert "secret" not in job.error


def test_a_second_job_of_a_page_stops_the_first_and_no_other():
    jobs, first, second, other = Jobs(), Job(endless), Job(endless), Job(endless)
    jobs.put("a", first)
    jobs.put("b", other)
    jobs.put("a", second)
    assert (first.stopped, second.stopped, other.stopped) == (True, False, False)
    jobs.done("a", first)  # late: it is the second's place by now
    assert jobs.stop("a")
    assert second.stopped
    assert not jobs.stop("nobody")


def wait_for(condition):
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)
