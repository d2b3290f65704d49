-- Some names of a list in their order, and the records of those that haven't expired.
--
-- KEYS: 1 the list. ARGV: 1 after which name, 2 how many names, 3 what their keys begin with.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local names = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, ARGV[2])
local page = {'page', #names, names[#names] or ''}
for _, name in ipairs(names) do
  local key = ARGV[3] .. name
  local held = redis.pcall('GET', key)
  if type(held) == 'table' then return {'type', key, redis.call('TYPE', key).ok} end
  local expiry = held and tonumber(string.sub(held, 18, 33))
  if held and not (expiry and expiry <= now) then
    page[#page + 1] = name
    page[#page + 1] = held
  end
end
return page
