-- The rows that place_holds() writes for :size requests, by the superuser, with nothing decided.
with placed as materialized (
  select flashsale_data.new_hold_id() as hold_id,
         flashsale_data.expiry_instant(clock_timestamp() + interval '1 day') as expires_at
  from generate_series(1, :size)
), held as (
  insert into flashsale_data.holds (hold_id, product_id, qty, placed_at, expires_at, currency, price)
  select hold_id, 1, 1, clock_timestamp(), expires_at, 'USD', 99.00 from placed
), recorded as (
  insert into flashsale_data.events (kind, at, product_id, hold_id, available_delta)
  select 'hold_placed', clock_timestamp(), 1, hold_id, -1 from placed
), lapsing as (
  insert into flashsale_data.lapses as l (product_id, lapses_at, held)
  select 1, expires_at, count(*) from placed group by expires_at
  on conflict (product_id, lapses_at) do update set held = l.held + excluded.held
)
update flashsale_data.stock set version = version + 1, held = held + :size where product_id = 1;
