select * from flashsale.place_holds(:nos::int[], :products::bigint[], :qtys::int[], :keys::text[]);
