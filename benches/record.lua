-- wrk script: POST a usage record of a random one of 1,000 users. USER_COUNT and TARGET come from the environment.
local target = os.getenv("TARGET") or "tallybox"
local users = tonumber(os.getenv("USER_COUNT") or "1000")
local body = '{"resourceType":"llm_tokens","amount":7,"metadata":{"model":"bench"}}'
local requests = {}

function init(args)
  math.randomseed(os.time())
  for user = 1, users do
    local id = string.format("00000000-0000-4000-8000-%012x", user)
    if target == "pocketbase" then
      wrk.path = "/api/collections/usage/records"
      requests[user] = wrk.format("POST", nil, {["Content-Type"] = "application/json"},
        '{"user":"' .. id .. '","resource":"llm_tokens","amount":7,"metadata":{"model":"bench"}}')
    elseif target == "check" then
      wrk.path = "/usage/check-quota"
      requests[user] = wrk.format("POST", nil, {["Content-Type"] = "application/json", ["X-User-Id"] = id},
        '{"resourceType":"llm_tokens","amount":7}')
    else
      wrk.path = "/usage/record"
      requests[user] = wrk.format("POST", nil, {["Content-Type"] = "application/json", ["X-User-Id"] = id}, body)
    end
  end
end

function request()
  return requests[math.random(users)]
end

-- One line of JSON that the caller reads: requests a second, failures, latencies in microseconds.
function done(summary, latency)
  local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write +
    summary.errors.timeout
  io.write(string.format('RESULT {"rate":%.1f,"bad":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests / summary.duration * 1e6, bad, latency:percentile(50), latency:percentile(99)))
end
