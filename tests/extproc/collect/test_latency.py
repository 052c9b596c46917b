from extproc.collect.latency import STANDS_S, Latency
from extproc.collect.metrics import Tally


def test_the_mean_is_of_the_last_interval_alone():
    latency = Latency()
    latency.observe(Tally(100.0, 10), 1.0)
    assert latency.mean(1.0) is None

    latency.observe(Tally(101.0, 14), 2.0)

    assert latency.mean(2.0) == 0.25


def test_without_requests_it_stands_for_a_while_and_is_then_forgotten():
    latency = Latency()
    latency.observe(Tally(0.0, 0), 1.0)
    latency.observe(Tally(3.0, 1), 2.0)
    latency.observe(Tally(3.0, 1), 2.0 + STANDS_S)

    assert latency.mean(2.0 + STANDS_S) == 3.0
    assert latency.mean(2.1 + STANDS_S) is None


def test_a_histogram_that_shrank_begins_anew():
    latency = Latency()
    for at, tally in enumerate((Tally(0.0, 0), Tally(3.0, 1), Tally(0.0, 0))):
        latency.observe(tally, at)
    assert latency.mean(2) is None

    latency.observe(Tally(1.0, 2), 3)

    assert latency.mean(3) == 0.5


def test_a_scrape_without_the_histogram_only_interrupts():
    latency = Latency()
    for at, tally in enumerate((Tally(0.0, 0), Tally(3.0, 1), None, Tally(9.0, 2))):
        latency.observe(tally, at)

    assert latency.mean(3) == 3.0


def test_negative_sums_are_not_believed():
    latency = Latency()
    latency.observe(Tally(5.0, 1), 0)
    latency.observe(Tally(-5.0, 2), 1)

    assert latency.mean(1) is None
