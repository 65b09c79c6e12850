"""Replicas follow the megapixels that they have, whatever requests those are of, or requests."""

from dataclasses import dataclass, field

import pytest

from serving.autoscaling import ByMegapixels, ByRequests


@dataclass
class Context:
    """What the policy reads of Serve's."""

    aggregated_metrics: dict[str, dict[str, float]] | None = field(default_factory=dict)
    total_num_requests: float = 0.0
    current_num_replicas: int = 1
    target_num_replicas: int = 1


@pytest.mark.parametrize(
    ("told", "requests", "replicas"),
    [
        ({"a": 8.0, "b": 4.0}, 1, 3),  # one request may take several
        ({"a": 0.004}, 100, 1),  # and a hundred small ones no more than one
        ({"a": 0.0, "b": 0.0}, 3, 1),  # as those of which nothing is known yet
        ({"a": 0.0}, 0, 0),
        ({"a": 2.0}, 0, 0.5),  # which Serve rounds up
        ({}, 0, 0),
    ],
)
def test_a_replica_for_each_target_of_megapixels(told, requests, replicas):
    context = Context({"megapixels": told} if told else {}, requests)
    assert ByMegapixels(4.0)(context) == (replicas, {})


def test_where_no_replica_has_told_anything_yet_one_stays_for_who_asks():
    assert ByMegapixels(4.0)(Context(None, 2)) == (1, {})
    assert ByMegapixels(4.0)(Context(None)) == (0, {})


@pytest.mark.parametrize(
    ("requests", "running", "replicas"),
    [(9, 2, 4.5), (9, 1, 4.5), (1, 4, 1), (3, 1, 1.5), (0, 4, 0), (0, 0, 1), (5, 0, 1)],
)
def test_a_replica_for_each_target_of_requests_as_serve_itself_has_it(requests, running, replicas):
    assert ByRequests(2.0)(Context({}, requests, running)) == (replicas, {})


@pytest.mark.parametrize("policy", [ByMegapixels(4.0), ByRequests(4.0)])
def test_one_stays_until_all_jobs_are_over(policy):
    """Nobody may ask any more who would start another."""
    assert policy(Context({"jobs": {"a": 0.0, "b": 0.2}, "megapixels": {"a": 0.0}})) == (1, {})
    assert policy(Context({"jobs": {"a": 0.0}, "megapixels": {"a": 0.0}})) == (0, {})


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.serve._private.config")
def test_serve_takes_the_policy_as_a_pickle_with_its_target():
    from ray.serve.config import AutoscalingConfig

    scaling = AutoscalingConfig(
        policy={
            "policy_function": "serving.autoscaling:ByMegapixels",
            "policy_kwargs": {"target": 2.0},
        }
    )
    made = scaling.policy.get_policy()
    assert made(**scaling.policy.policy_kwargs)(Context({"megapixels": {"a": 6.0}}, 1)) == (3, {})
