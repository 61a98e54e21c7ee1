-- Records the digest of the body that came with an idempotency key: from now on repeats can join its call.
-- KEYS: claim
-- ARGV: digest, TTL s
-- Returns 'ok'
redis.call('HSET', KEYS[1], 'body', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 'ok'
