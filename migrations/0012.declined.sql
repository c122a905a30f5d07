-- depends: 0011.terms

-- Callers wait for the table while its rows are checked.
-- squawk-ignore-file require-lock-timeout, require-statement-timeout, constraint-missing-not-valid
-- squawk-ignore-file ban-drop-constraint

set local role flashsale_owner;

-- A provider reports each refused attempt to pay, too: declined.
alter table flashsale_data.payments drop constraint payments_status;
alter table flashsale_data.payments add constraint payments_status
  check (status in ('success', 'failed', 'cancelled', 'declined')) not valid;
alter table flashsale_data.payments validate constraint payments_status;

reset role;
