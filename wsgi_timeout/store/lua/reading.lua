-- Keeps results that are being read, and of which nobody was told a URL, for as long as their readers are there. Notes in
-- a resumable stream that it has a reader: what a killed web process read looks as if it still did.
-- KEYS: record (and those of other calls)
-- ARGV: none
-- Returns 'ok'
local function keep(record)
  local r = hmget(record, 'state', 'untold', 'attempt', 'delivered')
  local body = 'wt:out:' .. string.sub(record, #'wt:call:' + 1) .. ':' .. (r[3] or 0)
  if r[1] == 'running' and hget(body, 'window') then
    although_full(body)
    redis.call('HSET', body, 'seen', redis.call('TIME')[1])
  end
  if r[1] ~= 'ended' or num(r[2], 0) == 0 or r[4] then return end
  local ttl = redis.call('TTL', record)
  if ttl >= 0 and ttl < UNTOLD_TTL / 2 then
    redis.call('EXPIRE', record, UNTOLD_TTL)
    redis.call('EXPIRE', body, UNTOLD_TTL)
  end
end

keep(KEYS[1])
for i = 2, #KEYS do keep(KEYS[i]) end
return 'ok'
