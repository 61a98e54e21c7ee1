-- A response was sent in full. One whose URL nobody knows is deleted; another stays for the grace.
-- KEYS: record, rq job, request body, response body, tombstone
-- ARGV: now ms, grace ms ('' = nobody knows the URL), tombstone, tombstone TTL s
if redis.call('HGET', KEYS[1], 'state') ~= 'ended' then return 'not ended' end
if ARGV[2] == '' then
  redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
  return 'deleted'
end
if redis.call('HSETNX', KEYS[1], 'delivered', ARGV[1]) == 0 then return 'delivered' end
redis.call('SET', KEYS[5], ARGV[3], 'EX', ARGV[4])
redis.call('UNLINK', KEYS[3])
for i, key in ipairs({KEYS[1], KEYS[2], KEYS[4]}) do redis.call('PEXPIRE', key, ARGV[2]) end
return 'delivered'
