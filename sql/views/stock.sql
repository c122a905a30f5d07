create or replace view flashsale.stock as
select p.product_id, p.name, s.total_stock, s.available as available_stock, s.held,
       s.awaiting as awaiting_payment, s.paid, p.price, p.currency
from flashsale_data.products p
cross join lateral flashsale_data.read_stock(array[p.product_id]) s;
comment on view flashsale.stock is 'Every product with its exact stock: available + held + awaiting_payment + paid = total_stock';
revoke all on flashsale.stock from public;
grant select on flashsale.stock to flashsale_ops;
