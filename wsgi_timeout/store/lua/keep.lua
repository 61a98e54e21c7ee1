-- Raises the TTL of a stream whose call is not queued yet. One that lives longer, or is gone, is left alone.
-- KEYS: stream
-- ARGV: TTL s
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return 'ok'
