-- Keeps results whose URL nobody was told while they are being read. Notes the time in resumable streams that have a
-- reader, so that the reader of a killed web process can be told from one that lives.
-- KEYS: record (and those of other calls)
-- ARGV: none
-- Returns 'ok'
local function keep(record)
  local r = hmget(record, 'state', 'untold', 'attempt', 'delivered')
  local body = 'wt:out:' .. string.sub(record, #'wt:call:' + 1) .. ':' .. (r[3] or 0)
  if r[1] == 'running' and hget(body, 'window') then
    write_though_full(body)
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
