"""Statistics that read their data once."""

from .moments import DescribeResult, describe

__all__ = ["DescribeResult", "describe"]
