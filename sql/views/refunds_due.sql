create or replace view flashsale.refunds_due as
select p.idempotency_key, p.order_id, coalesce(p.amount, o.amount) as amount,
       coalesce(p.currency, o.currency) as currency, p.received_at,
       case when p.result = 'amount_mismatch' then 'amount_mismatch'
            when p.order_status is null then 'order_unknown'
            when p.order_status = 'paid' then 'paid_twice'
            when o.cancel_reason = 'payment_cancelled' then 'order_cancelled'
            else 'sold_out' end as reason
from (
  select d.* from flashsale_data.payments d
  where d.status = 'success' and d.result in ('refund_due', 'amount_mismatch')
  union all
  -- Their order has not come, and nobody has tidied them.
  select w.* from flashsale_data.payments w
  where w.status = 'success' and w.result = 'stored'
    and w.received_at <= clock_timestamp() - (select c.inbox_keep from flashsale_data.settings c)) p
left join flashsale_data.orders o on o.order_id = p.order_id;
comment on view flashsale.refunds_due is 'Captured payments that paid no order: the money goes back';
revoke all on flashsale.refunds_due from public;
grant select on flashsale.refunds_due to flashsale_ops;
