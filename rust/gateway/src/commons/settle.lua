-- A request has ended. KEYS: minute, leases, purse, the last that this node settled.
-- ARGV: id, its number among the node's settlements, the second it was taken in (-1: nobody knows whether it was),
--   milliseconds since it began, milliseconds since it ended, estimated tokens, tokens, cost, 1: it was let in.
-- Gives 1, or 0 if it was settled before.
local number = tonumber(ARGV[2])
-- A node's settlements come in order, and those of which it had no answer come again.
if number <= (tonumber(redis.call('GET', KEYS[4])) or 0) then return 0 end
redis.call('SET', KEYS[4], ARGV[2], 'EX', 86400)

local held = redis.call('ZREM', KEYS[2], ARGV[1]) == 1
local at, began, ended = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local estimate, real, entered = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[9] == '1'
local r, t = 0, real - estimate
if at < 0 then
  at = math.floor((now - began) / 1000)
  if not held then
    if entered then r, t = 1, real else t = 0 end
  end
end
advance()
if not remembers(at) and (r > 0 or t > 0) then at = math.floor((now - ended) / 1000) end
if remembers(at) and (r ~= 0 or t ~= 0) then
  add(at, r, t)
  keep()
end

-- Where there is no sum, the next request brings one in which this is contained.
if tonumber(ARGV[8]) > 0 and redis.call('HEXISTS', KEYS[3], 'spent') == 1 then
  redis.call('HINCRBY', KEYS[3], 'spent', ARGV[8])
end
return 1
