"""Random transactions of several calls, and the oracle that judges what they were answered."""
