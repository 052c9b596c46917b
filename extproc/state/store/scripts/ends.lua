-- Where two streams end, read at one instant.
-- KEYS: live stream, cache stream
-- Returns {ms since 1970, last position of the first, of the second}
local function ended(stream)
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  return last and last[1] or '0-0'
end

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return {now, ended(KEYS[1]), ended(KEYS[2])}
