"""Refunds at the payment provider: asked for with our keys, so that a repetition returns no money twice."""
