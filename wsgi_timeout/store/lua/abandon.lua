-- Gives up a call whose client has disconnected before it was told the result URL: nobody can ask for its response.
-- KEYS: record, rq job, rq queue
-- ARGV: id, now ms
-- Returns 'unknown', 'ended' (it had ended before), 'dropped' (it will not run), or 'unwanted' (it may run, but its
--   response is not kept)
write_though_full(KEYS[1])
local r = hmget(KEYS[1], 'state', 'attempt', 'method', 'name')
if not r[1] then return 'unknown' end
if r[1] == 'ended' then return 'ended' end
local safe = r[3] == 'GET' or r[3] == 'HEAD' or r[3] == 'OPTIONS'
if safe and r[1] == 'queued' and r[2] == '0' then
  redis.pcall('LREM', KEYS[3], 1, ARGV[1])
  finish(KEYS[1], KEYS[2], ARGV[1], nil, ARGV[2], UNWANTED_TTL, 'cancelled', 'its client left before it began', {})
  return 'dropped'
end
redis.call('HSET', KEYS[1], 'unwanted', '1')
-- Nobody can ask for what it has written so far; from now on `write` refuses the rest.
if r[2] and redis.call('UNLINK', 'wt:out:' .. ARGV[1] .. ':' .. r[2]) == 1 and r[4] then count_call(r[4], ARGV[1], call_bytes(ARGV[1], r[2])) end
-- The pool that runs it raises this TTL, see `renew`: if no pool is left, the record expires.
if safe and r[1] == 'running' then
  for i = 1, 2 do redis.call('EXPIRE', KEYS[i], UNWANTED_TTL) end
end
return 'unwanted'
