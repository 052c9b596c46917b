-- One process is alive; who has not said so in time is forgotten.
-- KEYS: members
-- ARGV: member, ms from now until it is forgotten
-- Returns the members that are alive
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return redis.call('ZRANGE', KEYS[1], 0, -1)
