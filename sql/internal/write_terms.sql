-- Writes the terms in p_after to the product, whose stock row is at p_ctid and locked. p_kind is
-- the kind of the event, which has the terms as they are from now on. Nothing is written if they
-- are what they were, p_before.
--
-- Refuses SA009 invalid_request.
create or replace function flashsale_data.write_terms(
  p_before flashsale_data.products, p_after flashsale_data.products, p_ctid tid, p_kind text)
returns void
language plpgsql
as $$
declare
  v_error text := flashsale_data.terms_error(p_after);
begin
  if v_error is not null then
    perform flashsale_data.raise_refusal('SA009', v_error);
  elsif p_after = p_before then
    return;
  end if;

  if p_after.limit_group is distinct from p_before.limit_group then
    perform flashsale_data.check_limit_group(p_after);
  end if;
  update flashsale_data.products p
  set starts_at = p_after.starts_at, ends_at = p_after.ends_at, paused = p_after.paused,
      cancelled = p_after.cancelled,
      max_per_buyer = p_after.max_per_buyer, max_per_hold = p_after.max_per_hold,
      limit_group = p_after.limit_group, hold_time = p_after.hold_time,
      payment_window = p_after.payment_window, listed = p_after.listed,
      has_terms = p_after.paused or p_after.cancelled or num_nonnulls(p_after.starts_at, p_after.ends_at, p_after.max_per_buyer,
                                                 p_after.max_per_hold, p_after.limit_group) > 0
  where p.product_id = p_after.product_id;
  -- A caller above READ COMMITTED whose snapshot has the old terms gets 40001 at the lock.
  update flashsale_data.stock s
  set version = s.version + 1,
      gated = p_after.paused or p_after.cancelled or num_nonnulls(p_after.starts_at, p_after.ends_at) > 0
  where s.ctid = p_ctid; -- guard: terms-in-snapshot
  perform flashsale_data.announce_ledger_write();
  insert into flashsale_data.events (kind, at, product_id, data)
  values (p_kind, clock_timestamp(), p_after.product_id, jsonb_build_object(
    'starts_at', p_after.starts_at, 'ends_at', p_after.ends_at, 'paused', p_after.paused,
    'cancelled', p_after.cancelled,
    'max_per_buyer', p_after.max_per_buyer, 'max_per_hold', p_after.max_per_hold,
    'limit_group', p_after.limit_group, 'listed', p_after.listed,
    'hold_time', p_after.hold_time, 'payment_window', p_after.payment_window));
end
$$;
comment on function flashsale_data.write_terms(flashsale_data.products, flashsale_data.products, tid, text) is
  'Writes the terms of a product whose lock the caller has';
