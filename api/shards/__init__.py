"""Several databases, each with a share of the products (docs/shards.md)."""
