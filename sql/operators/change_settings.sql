-- Changes the behaviour that every caller shares. An argument left out, or null,
-- leaves its setting alone. Holds and orders that exist keep the times they were
-- given. Returns the settings as they are now. Refuses SA009 invalid_request.
create or replace function flashsale.change_settings(
  p_hold_time interval default null, p_payment_window interval default null,
  p_inbox_limit int default null, p_inbox_keep interval default null,
  out hold_time interval, out payment_window interval, out inbox_limit int, out inbox_keep interval)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_hold_time not between interval '100 milliseconds' and interval '1 day' then
    perform flashsale_data.refuse('SA009', 'hold_time is 100 milliseconds to 1 day.');
  elsif p_payment_window not between interval '100 milliseconds' and interval '30 days' then
    perform flashsale_data.refuse('SA009', 'payment_window is 100 milliseconds to 30 days.');
  elsif p_inbox_limit not between 0 and 1000000 then
    perform flashsale_data.refuse('SA009', 'inbox_limit is 0 to 1,000,000.');
  elsif p_inbox_keep not between interval '1 second' and interval '30 days' then
    perform flashsale_data.refuse('SA009', 'inbox_keep is 1 second to 30 days.');
  end if;
  update flashsale_data.settings s
  set hold_time = coalesce(p_hold_time, s.hold_time),
      payment_window = coalesce(p_payment_window, s.payment_window),
      inbox_limit = coalesce(p_inbox_limit, s.inbox_limit),
      inbox_keep = coalesce(p_inbox_keep, s.inbox_keep)
  returning s.hold_time, s.payment_window, s.inbox_limit, s.inbox_keep
    into hold_time, payment_window, inbox_limit, inbox_keep;
end
$$;
comment on function flashsale.change_settings(interval, interval, int, interval) is
  'Changes the behaviour that every caller shares; returns the settings';
revoke execute on function flashsale.change_settings(interval, interval, int, interval) from public;
grant execute on function flashsale.change_settings(interval, interval, int, interval) to flashsale_ops;
