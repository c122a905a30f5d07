-- Declares rejected webhooks dealt with: the money was refunded, or the payment was applied by
-- hand, or there was none. They leave the view and make room below settings.rejected_limit;
-- purge() deletes them later. Returns how many were dismissed, unknown and dismissed ones not
-- counted. Refuses SA009 invalid_request.
--
-- Locks    the counter of rejections, then the webhooks' rows, to commit.
create or replace function flashsale.dismiss_rejected_webhooks(p_webhook_ids text[])
returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_dismissed int;
begin
  if p_webhook_ids is null then
    perform flashsale_data.raise_refusal('SA009', 'Dismissing needs an array of ids of webhooks.');
  end if;
  perform from flashsale_data.rejection_counter for no key update;
  update flashsale_data.rejected_webhooks r
  set dismissed_at = clock_timestamp()
  where r.webhook_id = any (p_webhook_ids) and r.dismissed_at is null;
  get diagnostics v_dismissed = row_count;
  return v_dismissed;
end
$$;
comment on function flashsale.dismiss_rejected_webhooks(text[]) is
  'Declares rejected webhooks dealt with; returns how many';
revoke execute on function flashsale.dismiss_rejected_webhooks(text[]) from public;
grant execute on function flashsale.dismiss_rejected_webhooks(text[]) to flashsale_ops;
