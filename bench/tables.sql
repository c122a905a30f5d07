-- The tables of the baselines that have their own, and only the indexes that these need.
create schema bench;

-- lock_and_sum.py
create table bench.summed_products (
  product_id  bigint primary key,
  total_stock int not null
) with (fillfactor = 50);
create table bench.summed_holds (
  hold_id    bigint generated always as identity primary key,
  product_id bigint not null references bench.summed_products,
  qty        int not null check (qty > 0),
  status     text not null default 'active',
  expires_at timestamptz not null
);
create index on bench.summed_holds (product_id, expires_at) include (qty) where status = 'active';

-- pgbench_scripts/counter_and_insert.sql
create table bench.counters (
  product_id bigint primary key,
  available  int not null check (available >= 0)
) with (fillfactor = 10);
create table bench.counted_holds (
  hold_id    bigint generated always as identity primary key,
  product_id bigint not null,
  qty        int not null,
  expires_at timestamptz not null
);

grant usage on schema bench to flashsale_app;
grant all on all tables in schema bench to flashsale_app;
