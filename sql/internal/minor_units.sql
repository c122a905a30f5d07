-- Number of decimals of a currency's minor unit. Source: ISO 4217 list one; two decimals
-- unless listed.
create or replace function flashsale_data.minor_units(p_currency text)
returns int
language sql immutable
as $$
  select case
    when p_currency in ('BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'UYI',
                        'VND', 'VUV', 'XAF', 'XOF', 'XPF') then 0
    when p_currency in ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND') then 3
    when p_currency in ('CLF', 'UYW') then 4
    else 2 end;
$$;
comment on function flashsale_data.minor_units(text) is 'Decimals of a currency''s minor unit (ISO 4217)';
