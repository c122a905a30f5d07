-- GET /api/products/1
dofile("bench/load/report.lua")

function init()
  get = wrk.format("GET", "/api/products/1")
end

function request()
  return get
end
