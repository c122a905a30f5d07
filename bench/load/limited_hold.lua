-- POST /api/holds, one unit of product 1, each request for a buyer of its own
dofile("bench/load/report.lua")

local first, rest
local buyers = 0

function init()
  local request = wrk.format("POST", "/api/holds", {["Content-Type"] = "application/json"},
    '{"product_id":1,"qty":1,"buyer":"buyer-000000000"}')
  first, rest = request:match("^(.*buyer%-)%d+(.*)$")
end

function request()
  buyers = buyers + 1
  return first .. string.format("%09d", buyers) .. rest
end
