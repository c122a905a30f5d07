-- Whole seconds until an instant, rounded up: 1 to 60, as terms may change. What a client is asked
-- to wait, by the clock that will judge it.
create or replace function flashsale_data.seconds_until(p_at timestamptz)
returns int
language sql volatile
as $$
  select greatest(1, ceil(extract(epoch from
           least(p_at, clock_timestamp() + interval '60 s') - clock_timestamp())))::int;
$$;
comment on function flashsale_data.seconds_until(timestamptz) is 'Whole seconds until an instant, from 1 to 60';
