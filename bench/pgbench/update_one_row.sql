update bench.counters set available = available - 1 where product_id = 1;
