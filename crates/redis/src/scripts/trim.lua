-- Removes the first entries of a log.
--
-- KEYS: 1 the log. ARGV: 1 before which id, 2 how many at most.

local old = redis.call('XRANGE', KEYS[1], '-', '(' .. ARGV[1], 'COUNT', ARGV[2])
if #old == 0 then return 0 end
local ms, sequence = string.match(old[#old][1], '(%d+)-(%d+)')
return redis.call('XTRIM', KEYS[1], 'MINID', string.format('%s-%.0f', ms, sequence + 1))
