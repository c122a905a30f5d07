-- POST /api/holds, one unit of a product chosen at random.  Arguments: how many products there are
dofile("bench/load/report.lua")

local requests = {}

function init(args)
  for product = 1, tonumber(args[1]) do
    requests[product] = wrk.format("POST", "/api/holds", {["Content-Type"] = "application/json"},
      '{"product_id":' .. product .. ',"qty":1}')
  end
end

function request()
  return requests[math.random(#requests)]
end
