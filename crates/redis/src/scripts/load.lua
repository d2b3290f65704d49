-- Records by key, from one state; what has expired is absent.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local found = {'found'}
for i, key in ipairs(KEYS) do
  local held = redis.pcall('GET', key)
  if type(held) == 'table' then
    if not string.find(held.err, 'WRONGTYPE') then return held end
    return {'type', key, redis.call('TYPE', key).ok}
  end
  local expiry = held and tonumber(string.sub(held, 18, 33))
  if expiry and expiry <= now then held = false end
  found[i + 1] = held
end
return found
