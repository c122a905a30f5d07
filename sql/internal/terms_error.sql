-- What is wrong with the terms in a row of products, as a sentence; null if nothing is. Times have
-- four digits of the year, as RFC 3339 has them.
create or replace function flashsale_data.terms_error(p_product flashsale_data.products)
returns text
language sql immutable
as $$
  select case
    when p_product.starts_at not between timestamptz '1970-01-01 00:00+00' and timestamptz '9999-01-01 00:00+00'
      or p_product.ends_at not between timestamptz '1970-01-01 00:00+00' and timestamptz '9999-01-01 00:00+00'
      then 'A sale starts and ends between the years 1970 and 9998.'
    when p_product.starts_at >= p_product.ends_at
      then 'A sale ends after it starts.'
    when p_product.max_per_buyer < 1
      then 'The limit for each buyer is at least 1, or 0 for none.'
    when p_product.max_per_hold < 1
      then 'The limit for each hold is at least 1, or 0 for none.'
    when length(p_product.limit_group) > 255
      then 'A limit group has a name of at most 255 characters.'
  end;
$$;
comment on function flashsale_data.terms_error(flashsale_data.products) is
  'What is wrong with the terms of a product; null if nothing is';
