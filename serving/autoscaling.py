"""How many replicas a load takes: by requests, or by megapixels that wait or are computed.

Ray Serve's controller has this file as a pickle: it imports nothing of ours.
"""

from __future__ import annotations

from typing import Any

# What replicas say by `record_autoscaling_stats`.
MEGAPIXELS = "megapixels"
JOBS = "jobs"  # that are not over


class ByRequests:
    """A policy of Ray Serve: so many replicas that each has `target` requests at once, as its own
    has it."""

    def __init__(self, target: float) -> None:
        self.target = target

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """(replicas, nothing to keep) for an AutoscalingContext. Serve adds delays and limits."""
        if not context.current_num_replicas:  # they are only coming
            return context.target_num_replicas, {}
        return max(_least(context), context.total_num_requests / self.target), {}


class ByMegapixels:
    """Likewise, that each has `target` megapixels at once."""

    def __init__(self, target: float) -> None:
        self.target = target

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """As of ByRequests."""
        return max(_least(context), sum(_told(context, MEGAPIXELS)) / self.target), {}


def _least(context: Any) -> float:
    """One stays while somebody asks, also for what has no pixels or has not been read yet, and
    until all jobs are over, of which nobody may ask any more."""
    return 1.0 if context.total_num_requests > 0 or any(_told(context, JOBS)) else 0.0


def _told(context: Any, what: str) -> list[float]:
    """Of each replica that says it."""
    return [*(context.aggregated_metrics or {}).get(what, {}).values()]
