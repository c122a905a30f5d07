-- depends: 0008.replica-identity

set local role flashsale_owner;
-- A table that a report reads for long is not waited for: callers would wait behind this. Migrate again.
set local lock_timeout = '3s';
set local statement_timeout = '30min'; -- for the indexes of tables with millions of rows

-- Text that is indexed sorts by bytes, keys above all. In the order of a locale, an upgrade of the
-- operating system's library changes the order under an existing index: a key is no longer found, and
-- used a second time. No row is rewritten, only the indexes are.
do $$
declare
  v_before    text[];
  v_columns   text[];
  v_after     text[];
  v_statement text;
begin
  with recursive indexed as (
    select distinct i.indrelid, a.attnum, a.attname
    from pg_index i
    join pg_class c on c.oid = i.indrelid
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
    where c.relnamespace = 'flashsale_data'::regnamespace
      and a.attcollation = 'pg_catalog."default"'::regcollation
  ), dependents (oid, depth) as (
    select r.ev_class, 1
    from indexed x
    join pg_depend d on d.refobjid = x.indrelid and d.refobjsubid = x.attnum and d.classid = 'pg_rewrite'::regclass
    join pg_rewrite r on r.oid = d.objid
    union
    select r.ev_class, v.depth + 1
    from dependents v
    join pg_depend d on d.refobjid = v.oid and d.refclassid = 'pg_class'::regclass and d.classid = 'pg_rewrite'::regclass
    join pg_rewrite r on r.oid = d.objid and r.ev_class <> v.oid
  ), views as (
    select d.oid, d.oid::regclass as name, max(d.depth) as depth from dependents d group by d.oid
  )
  -- Views fix the types of their columns. They are the same afterwards, with their grants, for the version
  -- before; sql/ is loaded next. In a new database there are none.
  select array(select format('drop view %s', v.name) from views v order by v.depth desc),
         array(select format('alter table %s %s', x.indrelid::regclass,
                        string_agg(format('alter column %I type text collate "C"', x.attname), ', '))
               from indexed x group by x.indrelid),
         array(select format('create view %s as %s', v.name, pg_get_viewdef(v.oid)) from views v order by v.depth)
           || array(select format('grant %s on %s to %s%s', g.privilege_type, v.name,
                             case g.grantee when 0 then 'public' else g.grantee::regrole::text end,
                             case when g.is_grantable then ' with grant option' end)
                    from views v
                    join pg_class c on c.oid = v.oid
                    cross join lateral aclexplode(c.relacl) g
                    where g.grantee <> c.relowner)
    into v_before, v_columns, v_after;
  foreach v_statement in array v_before || v_columns || v_after loop
    execute v_statement;
  end loop;
end
$$;

-- The highest ids that purge() has removed. A copy of the tables does not bring the sequences along;
-- one that stands behind these would give out ids again that a payment provider or a reader of the
-- ledger knows. No row until something is removed.
create table flashsale_data.purge_state (
  singleton boolean not null default true,
  order_id  bigint  not null,
  event_id  bigint  not null,
  constraint purge_state_pkey primary key (singleton),
  constraint purge_state_one_row check (singleton)
);

-- What was removed before is not known: no more than has been given out.
insert into flashsale_data.purge_state (order_id, event_id)
select coalesce(pg_sequence_last_value('flashsale_data.order_ids'), 0),
       coalesce(pg_sequence_last_value('flashsale_data.event_ids'), 0)
where pg_sequence_last_value('flashsale_data.event_ids') is not null;

reset role;
