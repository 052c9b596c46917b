-- One publication, applied whole or not at all; returns 1 if applied, 0 if refused.
-- KEYS: config hash, log stream
-- ARGV: epoch, generation, whole (1 or 0), length of the log, the publication,
--       number of puts, then key and record of each put, then the key of each delete
local epoch, generation, whole = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local stored = redis.call('HMGET', KEYS[1], 'epoch', 'generation')
local present = stored[1] and stored[2]
local accepted
if whole then
  accepted = not present or (stored[1] ~= epoch and generation > tonumber(stored[2]))
else
  accepted = present and stored[1] == epoch and generation == tonumber(stored[2]) + 1
end
if not accepted then
  return 0
end

-- A script that fails half way is not rolled back. The log comes first: it is the only write that can fail
-- here (a key of another type), the hash has just been read.
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'p', ARGV[5])
if whole then
  redis.call('DEL', KEYS[1])
end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'generation', ARGV[2])
local deletes = 7 + 2 * tonumber(ARGV[6])
for i = 7, deletes - 1, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
for i = deletes, #ARGV do
  redis.call('HDEL', KEYS[1], ARGV[i])
end
return 1
