-- One holder takes or renews leases; what another holds is left to it.
-- KEYS: leases
-- ARGV: holder, ms from now until they run out
-- Returns for each lease 1 if the holder has it now, else 0
local held = {}
for i, lease in ipairs(KEYS) do
  local holder = redis.call('GET', lease)
  if not holder or holder == ARGV[1] then
    redis.call('SET', lease, ARGV[1], 'PX', ARGV[2])
    held[i] = 1
  else
    held[i] = 0
  end
end
return held
