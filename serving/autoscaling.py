"""How many replicas a load takes: by megapixels that wait or are computed, not by requests.

Ray Serve's controller has this file as a pickle: it imports nothing of ours.
"""

from __future__ import annotations

from typing import Any

MEGAPIXELS = "megapixels"  # what replicas say by `record_autoscaling_stats`


class ByMegapixels:
    """A policy of Ray Serve: so many replicas that each has `target` megapixels at once."""

    def __init__(self, target: float) -> None:
        self.target = target

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """(replicas, nothing to be kept) for an AutoscalingContext. Serve adds delays and limits.

        One stays while somebody asks, also for what has no pixels or has not been read yet.
        """
        told = (context.aggregated_metrics or {}).get(MEGAPIXELS, {})
        least = 1.0 if context.total_num_requests > 0 else 0.0
        return max(least, sum(told.values()) / self.target), {}
