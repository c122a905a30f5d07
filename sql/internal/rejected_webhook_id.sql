-- The id under which a rejected webhook is kept: its webhook_id or, if that is longer than 255 characters,
-- its beginning and a digest, since an index entry is limited in length.
create or replace function flashsale_data.rejected_webhook_id(p_webhook_id text)
returns text
language sql immutable
as $$
  select case
    when length(p_webhook_id) <= 255 then p_webhook_id
    else left(p_webhook_id, 190) || '~' || encode(sha256(convert_to(p_webhook_id, 'UTF8')), 'hex') end;
$$;
comment on function flashsale_data.rejected_webhook_id(text) is 'The id under which a rejected webhook is kept';
