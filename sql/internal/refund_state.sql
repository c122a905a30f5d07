-- Whether money is owed back for a captured payment: due or settled; null if it never became due
-- (p_reason is null). A payment of nothing is settled from the start. p_captured is null if its
-- amount is not known: any refund settles it then.
create or replace function flashsale_data.refund_state(p_reason text, p_captured numeric, p_refunded numeric)
returns text
language sql immutable
as $$
  select case
    when p_reason is null then null
    when p_captured = 0 then 'settled' -- guard: nothing-due-stored
    when p_refunded > 0 and p_refunded >= coalesce(p_captured, 0) then 'settled' -- guard: refund-settles
    else 'due' end;
$$;
comment on function flashsale_data.refund_state(text, numeric, numeric) is
  'Whether money is owed back for a captured payment';
