"""Counters and latency histograms."""

import dataclasses
import errno
import json

import pytest
from hdfs_fuse.errors import NoSpaceError, ShortReadError, UnavailableError
from hdfs_fuse.metrics import LATENCY_BOUNDS_S, Latency, Metrics
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200))
def test_quantiles_are_the_bounds_above_the_durations(durations: list[float]) -> None:
    latency = Latency()
    for duration in durations:
        latency.observe(duration)
    assert latency.count == sum(latency.buckets) == len(durations)
    found = latency.as_dict()
    assert found["mean_s"] == pytest.approx(sum(durations) / len(durations))
    for name, quantile in (("p50_s", 0.5), ("p99_s", 0.99)):
        bound = found[name] if found[name] is not None else float("inf")
        assert sum(duration <= bound for duration in durations) >= quantile * len(durations)


def test_a_bound_belongs_to_its_bucket() -> None:
    latency = Latency()
    latency.observe(LATENCY_BOUNDS_S[3])
    assert latency.buckets.index(1) == 3


def test_beyond_the_last_bound_there_is_no_quantile() -> None:
    latency = Latency()
    latency.observe(1000)
    assert latency.as_dict()["p50_s"] is None


def test_nothing_observed_is_no_division_by_zero() -> None:
    assert Latency().as_dict()["mean_s"] == 0.0


def test_every_metric_has_a_meaning_and_is_json() -> None:
    metrics = Metrics()
    assert all(field.metadata.get("meaning") for field in dataclasses.fields(metrics))
    assert set(json.loads(json.dumps(metrics.as_dict()))) == {field.name for field in dataclasses.fields(metrics)}


def test_errors_by_errno_and_exception() -> None:
    metrics = Metrics()
    for error in (UnavailableError("a"), ShortReadError("b"), UnavailableError("c")):
        metrics.errors.count(errno.EIO, error)
    metrics.errors.count(errno.ENOSPC, NoSpaceError("d"))
    assert metrics.as_dict()["errors"] == {
        "EIO": {"UnavailableError": 2, "ShortReadError": 1},
        "ENOSPC": {"NoSpaceError": 1},
    }
    assert Metrics().errors.as_dict() == {}


def test_mounts_do_not_share_histograms() -> None:
    Metrics().read_latency.observe(1)
    assert Metrics().read_latency.count == 0
