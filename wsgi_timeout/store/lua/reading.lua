-- Keeps results that are being read, and of which nobody was told a URL, for as long as their readers are there.
-- KEYS: record (and those of other calls)
-- ARGV: none
-- Returns 'ok'
local function keep(record)
  local r = hmget(record, 'state', 'untold', 'attempt', 'delivered')
  if r[1] ~= 'ended' or num(r[2], 0) == 0 or r[4] then return end
  local ttl = redis.call('TTL', record)
  if ttl >= 0 and ttl < UNTOLD_TTL / 2 then
    redis.call('EXPIRE', record, UNTOLD_TTL)
    redis.call('EXPIRE', 'wt:out:' .. string.sub(record, #'wt:call:' + 1) .. ':' .. (r[3] or 0), UNTOLD_TTL)
  end
end

keep(KEYS[1])
for i = 2, #KEYS do keep(KEYS[i]) end
return 'ok'
