-- What is wrong with a price in a currency, as a sentence; null if nothing is.
create or replace function flashsale_data.price_error(p_price numeric, p_currency text)
returns text
language sql immutable
as $$
  select case
    when p_price is null or not (p_price >= 0 and p_price < 1000000000000)
      then 'A price is 0 or more and below 10^12.'
    when p_price <> round(p_price, flashsale_data.minor_units(p_currency))
      then format('A price in %s has at most %s decimals.', p_currency, flashsale_data.minor_units(p_currency))
  end;
$$;
comment on function flashsale_data.price_error(numeric, text) is
  'What is wrong with a price in a currency; null if nothing is';
