-- depends:

-- Roles belong to the whole cluster, so another database may have made them.
-- Two databases migrating at once can race past the test for existence: the
-- loser finds the role there, which is all it wanted.
do $$
declare
  v_role text;
begin
  foreach v_role in array array['flashsale_owner', 'flashsale_api', 'flashsale_ops'] loop
    begin
      if not exists (select from pg_roles where rolname = v_role) then
        execute format('create role %I nologin', v_role);
      end if;
    exception when duplicate_object or unique_violation then
      null;
    end;
  end loop;
  if not pg_has_role('flashsale_ops', 'flashsale_api', 'usage') then
    grant flashsale_api to flashsale_ops;
  end if;
  -- Whoever migrates must be able to act as the owner.
  if not pg_has_role(current_user, 'flashsale_owner', 'usage') then
    execute format('grant flashsale_owner to %I', current_user);
  end if;
end
$$;

comment on role flashsale_owner is 'Owns every object of flashsale. Cannot log in.';
comment on role flashsale_api is 'May call the public functions of flashsale, and nothing else.';
comment on role flashsale_ops is 'flashsale_api, and the operators'' functions and views.';

-- Left behind by the migration tool's own tables if it made the schema first.
create schema if not exists flashsale_data authorization flashsale_owner;
create schema flashsale authorization flashsale_owner;

revoke all on schema flashsale, flashsale_data from public;
grant usage on schema flashsale to flashsale_api, flashsale_ops;

comment on schema flashsale is 'What others may call: functions and operators'' views. No tables.';
comment on schema flashsale_data is 'Tables and internal functions. No caller can touch them.';

-- PostgreSQL lets PUBLIC execute every new function unless told otherwise,
-- and only the default for the whole database takes that right away.
alter default privileges for role flashsale_owner revoke execute on functions from public;
