-- One instance states how many requests it has in flight per pod, all of them, or leaves.
-- The totals are corrected by the difference to what it stated before, so saying it twice changes nothing.
-- KEYS: totals, leases, counts of this instance
-- ARGV: instance, lease in ms (0 to leave), key prefix of every instance's counts, then pod and count of each pod
-- Returns {1 if the instance held a lease, {pod, total, ...}}
local totals, leases, own = KEYS[1], KEYS[2], KEYS[3]
local instance, lease = ARGV[1], tonumber(ARGV[2])
local MOST_REAPED = 4 -- per call, so that no call takes long after a mass restart

local function add(pod, difference)
  if redis.call('HINCRBY', totals, pod, difference) <= 0 then
    redis.call('HDEL', totals, pod)
  end
end

local function counts_in(key)
  local flat, counts = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do
    counts[flat[i]] = tonumber(flat[i + 1])
  end
  return counts
end

local known = redis.call('ZSCORE', leases, instance) and 1 or 0
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if lease > 0 then
  redis.call('ZADD', leases, now + lease, instance)
else
  redis.call('ZREM', leases, instance)
end

local before = counts_in(own)
for i = 4, #ARGV, 2 do
  local pod, count = ARGV[i], tonumber(ARGV[i + 1])
  local stated = before[pod] or 0
  before[pod] = nil
  if count ~= stated then
    add(pod, count - stated)
    redis.call('HSET', own, pod, count)
  end
end
for pod, stated in pairs(before) do
  add(pod, -stated)
  redis.call('HDEL', own, pod)
end

for _, gone in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, MOST_REAPED)) do
  local key = ARGV[3] .. gone
  for pod, stated in pairs(counts_in(key)) do
    add(pod, -stated)
  end
  redis.call('DEL', key)
  redis.call('ZREM', leases, gone)
end
return {known, redis.call('HGETALL', totals)}
