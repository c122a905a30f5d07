select * from flashsale.place_hold(1, 1);
