-- Moves one bucket's moment of being full. KEYS: the bucket. ARGV: microseconds, negative to give back.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local at = math.max(tonumber(redis.call('GET', KEYS[1])) or now, now) + ARGV[1]
if at <= now then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], string.format('%.0f', at), 'PX', math.ceil((at - now) / 1000) + 1)
end
return 0
