-- p_at, rounded up to a tenth of a second. Holds and orders lapse at such instants, so that
-- all that lapses at one instant is one row of flashsale_data.lapses. The waits of stored
-- webhooks end at such instants, too: announce_stored_webhooks() announces tenths.
create or replace function flashsale_data.expiry_instant(p_at timestamptz)
returns timestamptz
language sql stable
as $$
  select date_bin('100 milliseconds', p_at + interval '99.999 milliseconds', timestamptz 'epoch');
$$;
comment on function flashsale_data.expiry_instant(timestamptz) is 'p_at, rounded up to a tenth of a second';
