-- Where the units of a product count towards a limit: together with those of its limit group,
-- or by themselves.
create or replace function flashsale_data.claim_scope(p_product_id bigint, p_limit_group text)
returns text
language sql immutable
as $$
  select coalesce('group ' || p_limit_group, 'product ' || p_product_id::text) collate "C";
$$;
comment on function flashsale_data.claim_scope(bigint, text) is 'Where the units of a product count towards a limit';
