"""The batching policy by hand: when each image is decoded, and which batch it rides in."""

import pytest

from benchmarks.serving.simulation import ServiceTimes, simulate


def test_one_image_alone_takes_its_decoding_and_its_batch() -> None:
    assert simulate([5.0], [1.0], lambda _: 10.0, max_batch=4, decode_workers=1) == [11.0]


def test_what_arrives_while_the_encoder_is_busy_rides_in_the_next_batch() -> None:
    sizes: list[int] = []

    def encode(size: int) -> float:
        sizes.append(size)
        return 10.0

    # Decoded at once. The first starts at 0 alone; the other three wait until 10 and end at 20.
    found = simulate([0.0, 1.0, 2.0, 3.0], [0.0] * 4, encode, max_batch=4, decode_workers=1)

    assert found == [10.0, 19.0, 18.0, 17.0]
    assert sizes == [1, 3]


def test_a_batch_holds_no_more_than_it_may() -> None:
    sizes: list[int] = []

    def encode(size: int) -> float:
        sizes.append(size)
        return float(size)

    # All at 0: batches of 2, 2 and 1 end at 2, 4 and 5.
    found = simulate([0.0] * 5, [0.0] * 5, encode, max_batch=2, decode_workers=8)

    assert found == [2.0, 2.0, 4.0, 4.0, 5.0]
    assert sizes == [2, 2, 1]


def test_decoders_take_images_in_turn() -> None:
    # One decoder: ready at 3 and 6. Batches: 3 to 4, 6 to 7.
    assert simulate([0.0, 0.0], [3.0, 3.0], lambda _: 1.0, max_batch=8, decode_workers=1) == [
        4.0,
        7.0,
    ]
    # Two decoders: both ready at 3, in one batch.
    assert simulate([0.0, 0.0], [3.0, 3.0], lambda _: 1.0, max_batch=8, decode_workers=2) == [
        4.0,
        4.0,
    ]


def test_an_image_that_decodes_quickly_overtakes() -> None:
    # Ready at 9 and 2: the second rides from 2 to 4, the first from 9 to 11.
    found = simulate([0.0, 1.0], [9.0, 1.0], lambda _: 2.0, max_batch=8, decode_workers=2)

    assert found == [11.0, 3.0]


def test_an_idle_encoder_waits_for_the_next_arrival() -> None:
    found = simulate([0.0, 100.0], [1.0, 1.0], lambda _: 5.0, max_batch=8, decode_workers=1)

    assert found == [6.0, 6.0]


def test_service_times_are_drawn_from_what_was_measured() -> None:
    times = ServiceTimes([0.25], {1: [1.0], 2: [2.0, 3.0]})
    decode, encode = times.sampled(3, seed=0)

    assert decode == [0.25, 0.25, 0.25]
    assert encode(1) == 1.0
    assert {encode(2) for _ in range(50)} == {2.0, 3.0}


def test_the_same_seed_draws_the_same() -> None:
    times = ServiceTimes([0.1, 0.2, 0.3, 0.4], {1: [1.0]})

    assert times.sampled(20, 7)[0] == times.sampled(20, 7)[0]
    assert times.sampled(20, 7)[0] != times.sampled(20, 8)[0]
    assert simulate([], [], times.sampled(0, 1)[1], max_batch=1, decode_workers=1) == (
        pytest.approx([])
    )


def test_service_times_are_read_from_the_answers_of_batches() -> None:
    alone = ServiceTimes([1.0], {1: [10.0], 2: [20.0], 3: [30.0]})
    timings = [(1.0, 5.0), (2.0, 7.0), (3.0, 7.0), (4.0, 5.0)]

    found = ServiceTimes.seen(timings, alone)

    assert found.decode == [1.0, 2.0, 3.0, 4.0]
    assert found.encode == {1: [5.0, 5.0], 2: [7.0], 3: [30.0]}
