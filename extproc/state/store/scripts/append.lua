-- One more entry of a stream, which forgets what is older than it retains. The age is told by the Redis clock:
-- a publisher whose clock is wrong must not empty the stream for everybody.
-- KEYS: stream
-- ARGV: retention in ms, then field and value of each field
-- Returns the position of the entry
local time = redis.call('TIME')
local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[1])
return redis.call('XADD', KEYS[1], 'MINID', '~', string.format('%.0f', oldest), '*', unpack(ARGV, 2))
