-- The whole configuration and the place in the log from which to follow it, read at one instant.
-- KEYS: config hash, log stream
-- Returns false when nothing complete is stored, else {epoch, generation, position, field, value, ...}
local head = redis.call('HMGET', KEYS[1], 'epoch', 'generation')
if not (head[1] and head[2]) then
  return false
end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
return {head[1], head[2], last and last[1] or '0-0', redis.call('HGETALL', KEYS[1])}
