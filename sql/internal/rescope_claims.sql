-- Makes the claims on a product follow its terms, under its lock: into the scope of another group,
-- out of existence if it has neither a limit nor a group any more, and into existence, from its
-- holds and orders with a buyer, if it has one for the first time. Thus a limit counts what each
-- buyer has by now, whenever the limit was set.
create or replace function flashsale_data.rescope_claims(
  p_before flashsale_data.products, p_after flashsale_data.products)
returns void
language plpgsql
as $$
declare
  v_before text := case when num_nonnulls(p_before.max_per_buyer, p_before.limit_group) > 0
                   then flashsale_data.claim_scope(p_before.product_id, p_before.limit_group) end;
  v_after  text := case when num_nonnulls(p_after.max_per_buyer, p_after.limit_group) > 0
                   then flashsale_data.claim_scope(p_after.product_id, p_after.limit_group) end;
begin
  if v_before is not distinct from v_after then
    return;
  elsif v_after is null then
    delete from flashsale_data.claims c where c.product_id = p_after.product_id;
  elsif v_before is not null then
    update flashsale_data.claims c
    set scope = v_after
    where c.product_id = p_after.product_id;
  else
    insert into flashsale_data.claims (hold_id, scope, buyer, ends_at, product_id, qty)
    select h.hold_id, v_after, h.buyer,
           case when h.status = 'active' then h.expires_at
                when o.status = 'paid' then 'infinity'
                else o.payment_due_at end,
           h.product_id, h.qty
    from flashsale_data.holds h
    left join flashsale_data.orders o on o.hold_id = h.hold_id
    where h.product_id = p_after.product_id and h.buyer is not null
      and (h.status = 'active' or o.status in ('pending_payment', 'paid')); -- guard: claims-of-new-limit
  end if;
end
$$;
comment on function flashsale_data.rescope_claims(flashsale_data.products, flashsale_data.products) is
  'Makes the claims on a product follow its limit and limit group';
