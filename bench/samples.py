"""Numbers measured again and again, and what is said of them."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Samples:
    """One quantity's measured values, in the order in which they were measured."""

    values: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        self.values.append(value)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def percentile(self, percent: float) -> float:
        """The smallest measured value that is not below `percent` of all: no value that was never measured."""
        ordered = sorted(self.values)
        return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]

    def record(self) -> dict[str, Any]:
        return {
            "n": len(self.values),
            "median": self.median,
            "p95": self.percentile(95),
            "p99": self.percentile(99),
            "min": min(self.values),
            "max": max(self.values),
            "values": self.values,
        }
