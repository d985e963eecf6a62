-- wrk script: GET the page that PAGE names as a browser does, with the session cookies that the file COOKIES holds, in turn.
local sessions = {}
for line in io.lines(os.getenv("COOKIES")) do
  sessions[#sessions + 1] = line
end
local requests = {}
local turn = 0

function init(args)
  for number, session in ipairs(sessions) do
    requests[number] = wrk.format("GET", os.getenv("PAGE"),
      {["Cookie"] = "tallybox_session=" .. session, ["Accept"] = "text/html", ["Accept-Encoding"] = "gzip"})
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write +
    summary.errors.timeout
  io.write(string.format('RESULT {"requests":%d,"rate":%.1f,"bad":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.requests / summary.duration * 1e6, bad, latency:percentile(50), latency:percentile(99)))
end
