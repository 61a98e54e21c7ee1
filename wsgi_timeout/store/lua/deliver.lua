-- A response whose URL was given out was sent in full: it stays for the grace, and then a tombstone.
-- KEYS: record, request body, response body, tombstone
-- ARGV: now ms, grace ms, tombstone, tombstone TTL s, redirects that led to it
if hget(KEYS[1], 'state') ~= 'ended' then return 'not ended' end
-- First, so that a full Redis takes the rest: see `finish`.
redis.call('UNLINK', KEYS[2])
if redis.call('HSETNX', KEYS[1], 'delivered', ARGV[1]) == 0 then return 'delivered' end
redis.call('HSET', KEYS[1], 'hops', ARGV[5])
redis.call('SET', KEYS[4], ARGV[3], 'EX', ARGV[4])
for i, key in ipairs({KEYS[1], KEYS[3]}) do redis.call('PEXPIRE', key, ARGV[2]) end
return 'delivered'
