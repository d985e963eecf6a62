-- wrk script: POST a chat with one of the tokens, in turn. TOKENS names their file; BODY is what is asked, STREAM nothing.
local requests = {}
local turn = 0

function init(args)
  wrk.path = os.getenv("GATEWAY_PATH") or "/v1/chat/completions"
  for token in io.lines(os.getenv("TOKENS")) do
    requests[#requests + 1] = wrk.format("POST", nil,
      {["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. token}, os.getenv("BODY"))
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

-- One line of JSON that the caller reads: requests a second, failures, latencies in microseconds.
function done(summary, latency)
  local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write +
    summary.errors.timeout
  io.write(string.format('RESULT {"rate":%.1f,"bad":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests / summary.duration * 1e6, bad, latency:percentile(50), latency:percentile(99)))
end
