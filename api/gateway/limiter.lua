-- Takes from several buckets, all or nothing, on redis's own clock. The arithmetic is that of gcra.py.
-- KEYS: the buckets. ARGV: the holder's name, seconds that its places are kept unless renewed, then for each bucket
--   its kind ("r": a rate, "c": places), its limit, the amount, and its window in seconds.
-- Returns the number of the first bucket that refuses (0: none), then for each bucket what remains, the microseconds
--   until it is full, and the microseconds until the amount could be taken.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local holder, lease = ARGV[1], ARGV[2] * 1000000
local refused, waits = 0, {}

local function rate(i)
  return tonumber(ARGV[4 * i]), tonumber(ARGV[4 * i + 1]), tonumber(ARGV[4 * i + 2]) * 1000000
end

local function full_at(key)
  return math.max(tonumber(redis.call('GET', key)) or now, now)
end

for i, key in ipairs(KEYS) do
  local limit, amount, window = rate(i)
  waits[i] = 0
  if ARGV[4 * i - 1] == 'c' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    if redis.call('ZCARD', key) >= limit and not redis.call('ZSCORE', key, holder) then
      waits[i] = 1000000
    end
  else
    local ahead = full_at(key) + math.min(amount, limit) * window / limit - now
    waits[i] = math.max(0, ahead - window - 1)
  end
  if waits[i] > 0 and refused == 0 then refused = i end
end

local answer = { refused }
for i, key in ipairs(KEYS) do
  local limit, amount, window = rate(i)
  if ARGV[4 * i - 1] == 'c' then
    if refused == 0 then
      redis.call('ZADD', key, now + lease, holder)
      redis.call('PEXPIRE', key, math.ceil(lease / 1000))
    end
    table.insert(answer, math.max(0, limit - redis.call('ZCARD', key)))
    table.insert(answer, 0)
  else
    local at = full_at(key)
    if refused == 0 then
      at = at + amount * window / limit
      redis.call('SET', key, string.format('%.0f', at), 'PX', math.ceil((at - now) / 1000) + 1)
    end
    table.insert(answer, math.max(0, math.floor((window - (at - now)) * limit / window + 0.000001)))
    table.insert(answer, math.floor(at - now))
  end
  table.insert(answer, math.floor(waits[i]))
end
return answer
