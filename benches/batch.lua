-- wrk script: POST 1,000 usage records of one of 1,000 users in one batch.
local users = 1000
local entry = '{"resourceType":"llm_tokens","amount":7,"metadata":{"model":"bench"}}'
local body = '{"entries":[' .. string.rep(entry .. ",", 999) .. entry .. "]}"
wrk.method = "POST"
wrk.path = "/usage/record/batch"

function request()
  local id = string.format("00000000-0000-4000-8000-%012x", math.random(users))
  return wrk.format(nil, nil, {["Content-Type"] = "application/json", ["X-User-Id"] = id}, body)
end

function done(summary, latency)
  local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write +
    summary.errors.timeout
  io.write(string.format('RESULT {"rate":%.1f,"bad":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests / summary.duration * 1e6, bad, latency:percentile(50), latency:percentile(99)))
end
