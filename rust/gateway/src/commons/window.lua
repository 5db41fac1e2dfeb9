-- The minute of a key, as penstock_core::policy::window has it: 61 slots of a second, and their sums. Before each of the
-- other scripts. KEYS[1]: its hash: r<slot>, t<slot>, and newest, r, t.
local SLOTS = 61
local time = redis.call('TIME')
local second = tonumber(time[1])
local now = second * 1000 + math.floor(tonumber(time[2]) / 1000)
local minute = KEYS[1]
local head = redis.call('HMGET', minute, 'newest', 'r', 't')
local newest = tonumber(head[1]) or second
local requests, tokens = tonumber(head[2]) or 0, tonumber(head[3]) or 0

-- Forgets what is older than a minute. A clock that goes back stands still here.
local function advance()
  if second - newest >= SLOTS then
    redis.call('DEL', minute)
    requests, tokens = 0, 0
  else
    for past = newest + 1, second do
      local r, t = 'r' .. past % SLOTS, 't' .. past % SLOTS
      local old = redis.call('HMGET', minute, r, t)
      if old[1] or old[2] then
        requests, tokens = requests - (tonumber(old[1]) or 0), tokens - (tonumber(old[2]) or 0)
        redis.call('HDEL', minute, r, t)
      end
    end
  end
  newest = math.max(newest, second)
end

local function remembers(at)
  return at <= newest and newest - at < SLOTS
end

-- Adds to the slot of a second that is remembered; takes back no more than is there.
local function add(at, r, t)
  local slot = at % SLOTS
  if t < 0 then
    t = -math.min(-t, tonumber(redis.call('HGET', minute, 't' .. slot)) or 0)
  end
  if r ~= 0 then redis.call('HINCRBY', minute, 'r' .. slot, r) end
  if t ~= 0 then redis.call('HINCRBY', minute, 't' .. slot, string.format('%.0f', t)) end
  requests, tokens = requests + r, tokens + t
end

local function keep()
  redis.call('HSET', minute, 'newest', newest, 'r', requests, 't', string.format('%.0f', tokens))
  redis.call('EXPIRE', minute, 2 * SLOTS)
end

-- Milliseconds until a count will have fallen so far if nothing is added.
local function falls(field, count, limit)
  for at = newest - SLOTS + 1, newest do
    count = count - (tonumber(redis.call('HGET', minute, field .. at % SLOTS)) or 0)
    if count <= limit then return (at + SLOTS) * 1000 - now end
  end
  return (newest + SLOTS) * 1000 - now
end
