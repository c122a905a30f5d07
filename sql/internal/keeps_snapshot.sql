-- Whether this transaction keeps the snapshot of its first statement: REPEATABLE READ and
-- SERIALIZABLE. PostgreSQL runs READ UNCOMMITTED as READ COMMITTED.
create or replace function flashsale_data.keeps_snapshot()
returns boolean
language sql stable
as $$
  select current_setting('transaction_isolation') in ('repeatable read', 'serializable');
$$;
comment on function flashsale_data.keeps_snapshot() is 'Whether this transaction is above READ COMMITTED';
