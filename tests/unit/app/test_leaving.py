"""Whoever leaves stops what was begun for them."""

from app.http.leaving import Caller, caller_of, put_caller


def test_all_that_waits_is_stopped_once_the_caller_leaves() -> None:
    caller, stopped = Caller(), list[int]()

    def first() -> None:
        stopped.append(1)
        caller.forget(first)  # as work does that ends by it

    caller.wait_for(first)
    caller.wait_for(lambda: stopped.append(2))
    assert not stopped
    caller.leave()
    assert sorted(stopped) == [1, 2]


def test_what_is_done_is_not_stopped() -> None:
    caller, stopped = Caller(), list[int]()

    def stop() -> None:
        stopped.append(1)

    caller.wait_for(stop)
    caller.forget(stop)
    caller.leave()
    assert not stopped


def test_what_begins_after_the_caller_left_is_stopped_at_once() -> None:
    caller, stopped = Caller(), list[int]()
    caller.leave()
    caller.wait_for(lambda: stopped.append(1))
    assert stopped == [1]


def test_a_server_that_is_not_ours_tells_of_nobody() -> None:
    assert not caller_of({"type": "http"}).gone
    scope, caller = {"type": "http"}, Caller()
    put_caller(scope, caller)
    assert caller_of(scope) is caller
