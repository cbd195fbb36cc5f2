"""Histograms of what happens at every token say what prometheus_client's own would."""

import random

import pytest

from tokenwire.observe.facts import ChunksCame, StoreAppended
from tokenwire.observe.tally import Tallies

client = pytest.importorskip("prometheus_client")

BOUNDS = (0.005, 0.01, 0.5, 1, 30)


def samples(registry) -> dict[tuple[str, str], float]:
    return {
        (sample.name, repr(sorted(sample.labels.items()))): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_a_tally_collects_as_the_librarys_histogram_does() -> None:
    ours, theirs = client.CollectorRegistry(), client.CollectorRegistry()
    tallies = Tallies("gap_seconds", "Gaps", BOUNDS, "model")
    ours.register(tallies)
    histogram = client.Histogram("gap_seconds", "Gaps", ["model"], registry=theirs, buckets=BOUNDS)
    chance = random.Random(7)
    values = [0.0, *BOUNDS, 1000.0, *(chance.expovariate(2) for _ in range(500))]
    for number, value in enumerate(values):
        model = ("a", "b")[number % 2]
        if number % 3:
            tallies.of(model).observe(value)
        else:
            tallies.of(model).observe_all((value,))
        histogram.labels(model).observe(value)
    assert samples(ours) == pytest.approx(samples(theirs))


def test_a_tally_without_label_has_rows_before_anything_came() -> None:
    registry = client.CollectorRegistry()
    tallies = Tallies("append_seconds", "Appends", BOUNDS)
    tallies.of()
    registry.register(tallies)
    assert registry.get_sample_value("append_seconds_count") == 0
    assert registry.get_sample_value("append_seconds_bucket", {"le": "+Inf"}) == 0


def test_the_observer_counts_records_once_however_often_it_is_read() -> None:
    from tokenwire.observe.prometheus import PrometheusObserver

    observer = PrometheusObserver()
    observer(StoreAppended(3, 0.002))
    observer(StoreAppended(2, 0.2))
    observer(ChunksCame("run", "demo", (0.01, 0.02)))
    for _ in range(2):
        lines = observer.text().decode().splitlines()
        assert "tokenwire_store_records_total 5.0" in lines
        assert "tokenwire_store_append_seconds_count 2.0" in lines
        assert 'tokenwire_store_append_seconds_bucket{le="0.005"} 1.0' in lines
        assert 'tokenwire_chunk_gap_seconds_count{model="demo"} 2.0' in lines
