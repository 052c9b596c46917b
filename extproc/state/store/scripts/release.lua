-- One holder gives up leases; those of others stay.
-- KEYS: leases
-- ARGV: holder
for _, lease in ipairs(KEYS) do
  if redis.call('GET', lease) == ARGV[1] then
    redis.call('DEL', lease)
  end
end
