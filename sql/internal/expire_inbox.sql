-- The sweep of the inbox: ends the wait of at most p_limit stored webhooks whose order did not
-- come in time. Returns how many left the inbox.
create or replace function flashsale_data.expire_inbox(p_limit int)
returns int
language plpgsql
as $$
declare
  v_now   timestamptz := clock_timestamp();
  v_count int;
begin
  -- The sweep waits for no lock, and does not lock the row while no wait has ended;
  -- store_payments holds its lock already. create_orders locks stored webhooks first and
  -- this row last: with SKIP LOCKED the two never wait for each other.
  perform from flashsale_data.inbox
  where exists (
    select from flashsale_data.payments p where p.result = 'stored' and p.wait_ends_at <= v_now)
  for no key update skip locked;
  if not found then
    return 0;
  end if;
  v_count := flashsale_data.end_waits(array(
    select p.idempotency_key
    from flashsale_data.payments p
    where p.result = 'stored' and p.wait_ends_at <= v_now
    order by p.wait_ends_at
    limit p_limit
    for update skip locked), v_now);
  update flashsale_data.inbox set stored = stored - v_count where v_count > 0;
  return v_count;
end
$$;
comment on function flashsale_data.expire_inbox(int) is 'Ends the wait of webhooks whose order did not come';
