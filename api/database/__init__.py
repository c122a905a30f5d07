"""Many requests, few calls: concurrent requests are batched into calls of the set-based SQL functions."""
