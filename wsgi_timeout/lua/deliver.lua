-- A response was sent in full. One whose URL nobody knows is deleted; another stays for the grace.
-- KEYS: record, rq job, request body, response body, tombstone
-- ARGV: now ms, grace ms ('' = nobody knows the URL), tombstone, tombstone TTL s
local r = redis.call('HMGET', KEYS[1], 'state', 'stock')
if r[1] ~= 'ended' then return 'not ended' end
if ARGV[2] == '' then
  redis.call('UNLINK', KEYS[1], KEYS[3], KEYS[4])
  -- A stock worker of RQ is not done with its job yet, and deletes it itself.
  if not r[2] then redis.call('UNLINK', KEYS[2]) end
  return 'deleted'
end
if redis.call('HSETNX', KEYS[1], 'delivered', ARGV[1]) == 0 then return 'delivered' end
redis.call('SET', KEYS[5], ARGV[3], 'EX', ARGV[4])
redis.call('UNLINK', KEYS[3])
for i, key in ipairs({KEYS[1], KEYS[2], KEYS[4]}) do redis.call('PEXPIRE', key, ARGV[2]) end
return 'delivered'
