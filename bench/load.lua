-- The load: one request over and over (its content is a file), and at the end one line of JSON.
-- wrk -s load.lua URL -- FILE FRESH [CONTENT-TYPE]      FRESH of a hundred requests end their connection

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  file:close()
  if args[3] then
    wrk.headers["Content-Type"] = args[3]
  end
  local fresh, sum = tonumber(args[2]), 0
  local keeping = wrk.format()
  if fresh > 0 then
    wrk.headers["Connection"] = "close"
  end
  local closing = wrk.format()
  if fresh > 0 and fresh < 100 then
    request = function()
      sum = sum + fresh
      if sum < 100 then
        return keeping
      end
      sum = sum - 100
      return closing
    end
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"microseconds":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,' ..
    '"p50":%d,"p99":%d,"p999":%d,"most":%d}\n',
    summary.requests, summary.duration,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max))
end
