-- Whether a text shows anything: a character that is no space, no control and has a glyph.
-- Source: Unicode categories Cc, Cf, Zs, Zl, Zp and the property Default_Ignorable_Code_Point,
-- except prefixes of numbers (U+0600), which are of category Cf and have a glyph; and the
-- blank Braille pattern. Collation C: ranges are of code points.
create or replace function flashsale_data.is_visible(p_text text)
returns boolean
language sql immutable
as $$
  select p_text collate "C" ~ (
    E'[^\\u0001-\\u0020\\u007f-\\u00a0\\u00ad\\u034f\\u061c\\u115f\\u1160\\u1680\\u17b4\\u17b5'
    || E'\\u180b-\\u180f\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u2800\\u3000\\u3164'
    || E'\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb\\U00013430-\\U0001343f\\U0001bca0-\\U0001bca3'
    || E'\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff]');
$$;
comment on function flashsale_data.is_visible(text) is
  'Whether a text shows anything: not only spaces and invisible characters';
