"""Decoders: all of them where the encoder waits, one where it has all that it takes."""

import threading
from collections.abc import Iterator
from functools import partial

import pytest

from app.predictions.decoders import Decoders
from tests.integration.services import wait_for

THREADS = 3


class Encoder:
    """Says whether it is fed."""

    fed = False


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture
def decoders(encoder: Encoder) -> Iterator[Decoders]:
    made = Decoders(THREADS, lambda: encoder.fed)
    made.start()
    yield made
    made.stop()


class Images:
    """Images that are being decoded until they are let go."""

    def __init__(self) -> None:
        self.begun, self.done = list[int](), list[int]()
        self._lock, self._let_go = threading.Lock(), threading.Semaphore(0)

    def work(self, number: int) -> None:
        with self._lock:
            self.begun.append(number)
        assert self._let_go.acquire(timeout=30)
        with self._lock:
            self.done.append(number)

    def have_begun(self, count: int) -> bool:
        return len(self.begun) == count

    def let_go(self, count: int) -> None:
        self._let_go.release(count)


def submit(decoders: Decoders, images: Images, count: int) -> None:
    for number in range(count):
        decoders.submit([partial(images.work, number)])


def test_all_work_while_the_encoder_waits(decoders: Decoders) -> None:
    images = Images()
    submit(decoders, images, 5)
    wait_for(lambda: len(images.begun) == THREADS, "all threads")
    images.let_go(5)
    wait_for(lambda: len(images.done) == 5, "the rest")


def test_one_works_while_the_encoder_is_fed(decoders: Decoders, encoder: Encoder) -> None:
    encoder.fed, images = True, Images()
    submit(decoders, images, 4)
    for done in range(4):
        wait_for(partial(images.have_begun, done + 1), "the next image")
        assert images.begun == list(range(done + 1))
        images.let_go(1)
    wait_for(lambda: len(images.done) == 4, "all of them")


def test_the_others_help_once_the_encoder_waits(decoders: Decoders, encoder: Encoder) -> None:
    encoder.fed, images = True, Images()
    submit(decoders, images, 6)
    wait_for(lambda: len(images.begun) == 1, "the first image")
    encoder.fed = False
    images.let_go(1)  # whoever is done with one looks whether there is more than it can do
    wait_for(lambda: len(images.begun) == 1 + THREADS, "all threads")
    images.let_go(5)
    wait_for(lambda: len(images.done) == 6, "the rest")


def test_what_was_submitted_is_done_at_the_end(encoder: Encoder) -> None:
    encoder.fed, images = True, Images()
    decoders = Decoders(THREADS, lambda: encoder.fed)
    decoders.start()
    submit(decoders, images, 7)
    images.let_go(7)
    decoders.stop()
    assert sorted(images.done) == list(range(7))
    assert not [t for t in threading.enumerate() if t.name.startswith("decode_")]


def test_stopping_what_never_started(encoder: Encoder) -> None:
    Decoders(THREADS, lambda: encoder.fed).stop()
