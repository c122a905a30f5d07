-- depends: 0013.refunds

-- The table has one row.
-- squawk-ignore-file require-lock-timeout, require-statement-timeout

set local role flashsale_owner;

-- When the last run of the sweep failed, and how; null after one that has succeeded.
alter table flashsale_data.scheduler
  add column failed_at timestamptz,
  add column failure text;

reset role;
