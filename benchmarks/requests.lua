-- Sends the requests of a plan, one in each line of its file: METHOD <tab> path <tab> token <tab> body.
-- wrk -t1 -s requests.lua URL -- PLAN once|again
-- With "once" each line is sent one time; the load then pauses until wrk's time is over.

local ffi = require("ffi")
ffi.cdef("typedef struct { long s, ns; } moment; int clock_gettime(int clock, moment *now);")

local threads, plan, moment = {}, {}, ffi.new("moment")
local checked, asked = false, 0

-- Global: only globals can be read from another thread.
sent, answered, failed, first, last, first_error = 0, 0, 0, 0, 0, ""

local function now()
  ffi.C.clock_gettime(1, moment)
  return tonumber(moment.s) + tonumber(moment.ns) / 1e9
end

local function pause_at_the_end()
  asked = asked + 1
  return asked > #plan and 3600000 or 0
end

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  for line in io.lines(args[1]) do
    local method, path, token, body = line:match("^(.-)\t(.-)\t(.-)\t(.*)$")
    local headers = {["Content-Type"] = "application/json"}
    if token ~= "" then headers["Authorization"] = "Bearer " .. token end
    if body == "" then body = nil end
    table.insert(plan, wrk.format(method, path, headers, body))
  end
  -- wrk calls it whenever it is defined, before each request.
  if args[2] == "once" then delay = pause_at_the_end end
end

function request()
  if not checked then
    -- wrk asks for a request to look at, which it does not send.
    checked = true
    return plan[1]
  end
  if sent == 0 then first = now() end
  sent = sent + 1
  return plan[(sent - 1) % #plan + 1]
end

function response(status, headers, body)
  answered, last = answered + 1, now()
  if status ~= 200 then
    failed = failed + 1
    if first_error == "" then first_error = status .. " " .. body:gsub("%s+", " "):sub(1, 300) end
  end
end

function done(summary, latency, requests)
  local e, thread = summary.errors, threads[1]
  local lost = e.connect + e.read + e.write + e.timeout
  local numbers = {thread:get("answered"), thread:get("failed") + lost, thread:get("last") - thread:get("first"),
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, summary.bytes}
  print("RESULT\t" .. table.concat(numbers, "\t") .. "\t" .. thread:get("first_error"))
end
