-- Forgets a note: its call was answered, or was left for so long that nobody may come back for it.
-- KEYS: note
-- ARGV: call id, inbox of who waited, ms since its client left ('': it has not)
-- Returns whether it did: by then the call may be somebody else's
local r = hmget(KEYS[1], 'call', 'inbox', 'gone')
if r[1] ~= ARGV[1] or r[2] ~= ARGV[2] then return 0 end
local gone = num(r[3], 0)
if ARGV[3] ~= '' and (gone == 0 or server_ms() - gone < tonumber(ARGV[3])) then return 0 end
redis.call('UNLINK', KEYS[1])
return 1
