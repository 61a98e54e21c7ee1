-- Deletes a note: its call was answered, or its client has been gone for too long to join it again.
-- KEYS: note
-- ARGV: call id, inbox of the web process that waited, least ms since the client disconnected ('': it has not)
-- Returns 1 if it did, 0 if another request has taken the call over
local r = hmget(KEYS[1], 'call', 'inbox', 'gone')
if r[1] ~= ARGV[1] or r[2] ~= ARGV[2] then return 0 end
local gone = num(r[3], 0)
if ARGV[3] ~= '' and (gone == 0 or server_ms() - gone < tonumber(ARGV[3])) then return 0 end
redis.call('UNLINK', KEYS[1])
return 1
