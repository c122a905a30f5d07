create or replace view flashsale.test_payments as
select p.idempotency_key, p.order_id, p.status, p.amount, p.currency, p.received_at, p.result,
       p.order_status, p.payload, p.wait_ends_at, o.product_id
from flashsale_data.orders o
join flashsale_data.payments p on p.order_id = o.order_id
where o.product_id in (select t.product_id from flashsale_data.products t where t.is_test);
comment on view flashsale.test_payments is 'Webhooks for orders of test products, as in payments, which leaves them out';
revoke all on flashsale.test_payments from public;
grant select on flashsale.test_payments to flashsale_ops;
