create or replace view flashsale.terms as
select t.product_id, t.sale_status, t.starts_at, t.ends_at, t.max_per_buyer, t.limit_group, t.max_per_hold,
       t.hold_time, t.payment_window, t.listed, t.now
from flashsale.list_terms() t;
comment on view flashsale.terms is 'When, how and to whom every product is sold; change_terms() edits it';
revoke all on flashsale.terms from public;
grant select on flashsale.terms to flashsale_ops;
