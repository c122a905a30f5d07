-- Whether a product with this window is on sale at p_now. A pause counts within the window; a sale
-- that was cancelled stays so.
create or replace function flashsale_data.sale_status(
  p_starts_at timestamptz, p_ends_at timestamptz, p_paused boolean, p_cancelled boolean, p_now timestamptz)
returns text
language sql immutable
as $$
  select case
    when p_cancelled then 'cancelled' -- guard: sale-cancelled
    when p_ends_at <= p_now then 'ended' -- guard: sale-ended
    when p_starts_at > p_now then 'scheduled' -- guard: sale-not-started
    when p_paused then 'paused'
    else 'open' end;
$$;
comment on function flashsale_data.sale_status(timestamptz, timestamptz, boolean, boolean, timestamptz) is
  'scheduled, open, paused, ended or cancelled';
