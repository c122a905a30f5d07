-- Changes the behaviour that all callers share. An argument that is left out, or null, leaves
-- its setting alone. Existing holds and orders keep their times. A shorter inbox_keep applies
-- to stored webhooks, too, except those that another transaction is storing or has locked at
-- that moment; a longer one applies to later webhooks only: a wait that has ended never
-- resumes. A lower rejected_limit removes no rejected webhook. max_extensions holds for holds that
-- exist, too. Returns the settings as they
-- are now. Refuses SA009 invalid_request.
--
-- Locks    the settings, and the webhooks whose wait it shortens, to commit. The orders of
--          these webhooks wait for that while they hold their product's lock: call it in a
--          transaction of its own.
create or replace function flashsale.change_settings(
  p_hold_time interval default null, p_payment_window interval default null,
  p_inbox_limit int default null, p_inbox_keep interval default null, p_rejected_limit int default null,
  p_extension_time interval default null, p_max_extensions int default null,
  out hold_time interval, out payment_window interval, out inbox_limit int, out inbox_keep interval,
  out rejected_limit int, out extension_time interval, out max_extensions int)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Compared and kept in seconds: the length of a day or a month depends on the date it is
  -- added to, and on the caller's time zone.
  if extract(epoch from p_hold_time) not between 0.1 and 86400 then
    perform flashsale_data.raise_refusal('SA009', 'hold_time is 100 milliseconds to 1 day.');
  elsif extract(epoch from p_payment_window) not between 0.1 and 30 * 86400 then
    perform flashsale_data.raise_refusal('SA009', 'payment_window is 100 milliseconds to 30 days.');
  elsif p_inbox_limit not between 0 and 1000000 then
    perform flashsale_data.raise_refusal('SA009', 'inbox_limit is 0 to 1,000,000.');
  elsif extract(epoch from p_inbox_keep) not between 1 and 30 * 86400 then
    perform flashsale_data.raise_refusal('SA009', 'inbox_keep is 1 second to 30 days.');
  elsif p_rejected_limit not between 0 and 100000 then
    perform flashsale_data.raise_refusal('SA009', 'rejected_limit is 0 to 100,000.');
  elsif extract(epoch from p_extension_time) not between 0.1 and 86400 then
    perform flashsale_data.raise_refusal('SA009', 'extension_time is 100 milliseconds to 1 day.');
  elsif p_max_extensions not between 0 and 1000 then
    perform flashsale_data.raise_refusal('SA009', 'max_extensions is 0 to 1,000.');
  end if;
  update flashsale_data.settings s
  set hold_time = coalesce(extract(epoch from p_hold_time) * interval '1 second', s.hold_time),
      payment_window = coalesce(extract(epoch from p_payment_window) * interval '1 second', s.payment_window),
      inbox_limit = coalesce(p_inbox_limit, s.inbox_limit),
      inbox_keep = coalesce(extract(epoch from p_inbox_keep) * interval '1 second', s.inbox_keep),
      rejected_limit = coalesce(p_rejected_limit, s.rejected_limit),
      extension_time = coalesce(extract(epoch from p_extension_time) * interval '1 second', s.extension_time),
      max_extensions = coalesce(p_max_extensions, s.max_extensions)
  returning s.hold_time, s.payment_window, s.inbox_limit, s.inbox_keep, s.rejected_limit, s.extension_time,
            s.max_extensions
    into hold_time, payment_window, inbox_limit, inbox_keep, rejected_limit, extension_time, max_extensions;
  if p_inbox_keep is not null then
    if flashsale_data.keeps_snapshot() then
      -- Raises 40001 if a webhook has been stored since the snapshot. After the settings, as
      -- the callers that read them (reject_stale_snapshot) lock these first.
      perform from flashsale_data.inbox for no key update;
    end if;
    -- A webhook that another transaction has locked is being applied or ended.
    with kept as (
      select p.idempotency_key
      from flashsale_data.payments p
      where p.result = 'stored'
        -- guard: wait-only-shortened
        and p.wait_ends_at > flashsale_data.expiry_instant(p.received_at + change_settings.inbox_keep)
      for update skip locked)
    update flashsale_data.payments p
    set wait_ends_at = flashsale_data.expiry_instant(p.received_at + change_settings.inbox_keep)
    from kept k
    where p.idempotency_key = k.idempotency_key;
  end if;
end
$$;
comment on function flashsale.change_settings(interval, interval, int, interval, int, interval, int) is
  'Changes the behaviour that all callers share; returns the settings';
revoke execute on function flashsale.change_settings(interval, interval, int, interval, int, interval, int) from public;
grant execute on function flashsale.change_settings(interval, interval, int, interval, int, interval, int) to flashsale_ops;
