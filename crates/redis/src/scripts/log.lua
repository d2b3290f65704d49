-- Entries of a log, and on to the end of a commit: those of one commit share a tick.
--
-- KEYS: 1 the log. ARGV: 1 "forward" or "back", 2 from where, 3 how many.

local is_forward = ARGV[1] == 'forward'
local read = is_forward and 'XRANGE' or 'XREVRANGE'
local page = redis.call(read, KEYS[1], ARGV[2], is_forward and '+' or '-', 'COUNT', ARGV[3])
if #page == tonumber(ARGV[3]) and #page > 0 then
  local last = page[#page][1]
  local ms, sequence = string.match(last, '(%d+)-(%d+)')
  local first = tonumber(sequence) - tonumber(sequence) % 65536
  local bound = string.format('%s-%.0f', ms, is_forward and first + 65535 or first)
  for _, entry in ipairs(redis.call(read, KEYS[1], '(' .. last, bound)) do
    page[#page + 1] = entry
  end
end
return page
