create or replace view flashsale.stock as
select s.product_id, s.name, s.total_stock, s.available_stock, s.held, s.awaiting, s.paid,
       s.price, s.currency
from flashsale.list_stock() s;
comment on view flashsale.stock is 'Every product with its exact stock: available + held + awaiting + paid = total_stock';
revoke all on flashsale.stock from public;
grant select on flashsale.stock to flashsale_ops;
