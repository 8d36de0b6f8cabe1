"""A generator that runs ahead in a thread: in order, not far, and closed in that thread."""

import threading
from concurrent.futures import Future

import pytest

from mmpt_plugin.video.ahead import in_order, run_ahead


def test_items_come_in_order_and_are_not_computed_far_ahead():
    """Two items are ahead of those that were taken, and the one in hand."""
    computed, taken = [], []

    def numbers():
        for number in range(20):
            computed.append(number)
            yield number

    for number in run_ahead(numbers(), ahead=2):
        taken.append(number)
        assert len(computed) <= len(taken) + 2
    assert taken == list(range(20))


def test_closing_it_closes_the_generator_in_its_thread():
    threads = []

    def numbers():
        try:
            while True:
                threads.append(threading.current_thread())
                yield 1
        finally:
            threads.append(threading.current_thread())

    ahead = run_ahead(numbers(), ahead=3)
    assert next(ahead) == 1
    ahead.close()
    assert len(threads) <= 4 + 1
    (thread,) = set(threads)
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_closing_cancels_what_is_not_begun():
    """One of three futures ahead is running."""
    futures: list[Future[int]] = [Future() for _ in range(6)]
    futures[0].set_result(7)
    futures[1].set_running_or_notify_cancel()
    results = in_order(futures, ahead=3)
    assert next(results) == 7
    results.close()
    assert [future.cancelled() for future in futures] == [False, False, True, True, False, False]


def test_an_error_is_the_same_object_with_its_cause():
    error = ValueError("damaged")

    def numbers():
        yield 1
        raise error from OSError("read")

    ahead = run_ahead(numbers(), ahead=3)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="damaged") as raised:
        next(ahead)
    assert raised.value is error
    assert str(raised.value.__cause__) == "read"
    assert list(ahead) == []
