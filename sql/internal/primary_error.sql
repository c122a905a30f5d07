-- Why this is not the server that the sale is written on, as a sentence; null if it is. A standby
-- has no locks of the writers on the primary, and so none of their announcements. Neither has a
-- logical copy, into which a subscription writes: its sequences stand still, and what is written
-- here collides with what is copied.
create or replace function flashsale_data.primary_error()
returns text
language sql stable
as $$
  select case
    when pg_is_in_recovery() then 'The server is a standby, in recovery: connect to the primary.' -- guard: not-in-recovery
    else (select format('Subscription %I copies %s into this database: connect to the primary, or drop the'
                          || ' subscription after a switch.', min(s.subname), min(r.srrelid)::regclass)
          from pg_subscription_rel r
          join pg_subscription s on s.oid = r.srsubid
          join pg_class c on c.oid = r.srrelid
          where c.relnamespace = 'flashsale_data'::regnamespace -- guard: not-a-copy
          having count(*) > 0) end;
$$;
comment on function flashsale_data.primary_error() is 'Why this is not the primary, as a sentence; null if it is';
