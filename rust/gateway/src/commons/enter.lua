-- Lets a request in, or says what keeps it out. KEYS: minute, leases, purse.
-- ARGV: id, estimated tokens, rpm, tpm, max_parallel, budget (-1: none), spent as far as the node knows (-1: it does not), period
--   of that, 1: whatever stands here is to be that, milliseconds of a lease.
-- Gives: 0 in, 1 a minute's limit, 2 requests at once, 3 the budget; milliseconds until it may be otherwise; the second
--   it was taken in; spent; period.
local id, estimate = ARGV[1], tonumber(ARGV[2])
local rpm, tpm, parallel, budget = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local known, told, anew, lease = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9] == '1', tonumber(ARGV[10])

-- Billionths of a dollar. What is not here, for the first time or because the server lost it, is what the node knows.
local purse = redis.call('HMGET', KEYS[3], 'spent', 'period')
local spent, period = tonumber(purse[1]), tonumber(purse[2]) or 0
if known >= 0 and (not spent or told > period or anew) then
  spent, period = known, told
  redis.call('HSET', KEYS[3], 'spent', string.format('%.0f', spent), 'period', string.format('%.0f', period))
end
spent = spent or 0
if budget >= 0 and spent >= budget then return { 3, 0, second, spent, period } end

redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
if redis.call('ZSCORE', KEYS[2], id) then return { 0, 0, second, spent, period } end
if parallel >= 0 and redis.call('ZCARD', KEYS[2]) >= parallel then return { 2, 0, second, spent, period } end

advance()
local wait = 0
if rpm >= 0 and requests > rpm - 1 then wait = falls('r', requests, rpm - 1) end
-- One that is larger than the limit by itself is let in when nothing else counts.
local room = math.max(tpm - estimate, 0)
if tpm >= 0 and tokens > room then wait = math.max(wait, falls('t', tokens, room)) end
if wait > 0 then
  keep()
  return { 1, wait, newest, spent, period }
end

add(newest, 1, estimate)
keep()
redis.call('ZADD', KEYS[2], now + lease, id)
redis.call('PEXPIRE', KEYS[2], 2 * lease)
return { 0, 0, newest, spent, period }
