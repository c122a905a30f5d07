-- depends: 0002.tables

set local role flashsale_owner;

-- A stored webhook waits for its order until an instant that is fixed when it is
-- stored. Computed from settings.inbox_keep at each look, the instant moved with
-- the setting: a webhook that its order had passed over could wait again.
alter table flashsale_data.payments add column wait_ends_at timestamptz;
comment on column flashsale_data.payments.wait_ends_at is
  'Until when a stored webhook waits for its order; null if its order was known.';

-- One whose order exists was passed over by it, and waits no longer.
update flashsale_data.payments p
set wait_ends_at = least(
  p.received_at + (select s.inbox_keep from flashsale_data.settings s),
  (select o.created_at from flashsale_data.orders o where o.order_id = p.order_id))
where p.result = 'stored';

-- For the functions of the version before, which store webhooks without naming the
-- column until sql/ is loaded. Those of this version always name it.
alter table flashsale_data.payments
  alter column wait_ends_at set default clock_timestamp() + interval '24 hours';

alter table flashsale_data.payments
  add constraint payments_stored_has_a_deadline check (result <> 'stored' or wait_ends_at is not null);

drop index flashsale_data.payments_inbox;
create index payments_inbox on flashsale_data.payments (wait_ends_at) where result = 'stored';

reset role;
