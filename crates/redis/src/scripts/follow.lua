-- Records by key and those that they name, from one state; what has expired is absent.
--
-- KEYS: the records asked for. ARGV: 1 what the partition's keys begin with, 2 "subject", "both" or
--       "sessions", 3 how many sessions must be listed, then the places among KEYS of the records
--       to follow from.
-- Says "apart" where that takes more than one question: a record of a later release, or a slot
-- that is moving, of which this server was told only the keys asked for.

local prefix, what, least = ARGV[1], ARGV[2], tonumber(ARGV[3])
-- A sid takes no less.
local SID_BYTES = 20
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function read(key)
  local held = redis.pcall('GET', key)
  if type(held) == 'table' then
    if string.find(held.err, 'non local', 1, true) then return false, {'apart'} end
    if not string.find(held.err, 'WRONGTYPE', 1, true) then return false, held end
    return false, {'type', key, redis.call('TYPE', key).ok}
  end
  local expiry = held and tonumber(string.sub(held, 18, 33))
  if expiry and expiry <= now then return false end
  return held
end

-- The names that a record holds; nothing where it can't be read here. Before its body stand the
-- head and the format of the record.
local function names(held)
  if string.byte(held, 1) ~= 49 or string.byte(held, 34) ~= 1 then return nil end
  if what == 'sessions' and #held < least * SID_BYTES then return {} end
  local is_json, body = pcall(cjson.decode, string.sub(held, 35))
  if not is_json or type(body) ~= 'table' then return nil end
  local led = {}
  if what == 'sessions' then
    local sids = body.s or {}
    if #sids >= least then
      for i, sid in ipairs(sids) do led[i] = 'session:' .. sid end
    end
  elseif body.sub then
    led[1] = 'subject:' .. body.sub
    if what == 'both' then led[2] = 'index:' .. body.sub end
  end
  return led
end

local asked, followed = {}, {}
for i, key in ipairs(KEYS) do
  local held, problem = read(key)
  if problem then return problem end
  asked[i] = held
end
for i = 4, #ARGV do
  local held = asked[tonumber(ARGV[i])]
  if held then
    local led = names(held)
    if not led then return {'apart'} end
    for _, name in ipairs(led) do
      local brought, problem = read(prefix .. name)
      if problem then return problem end
      followed[#followed + 1] = brought
    end
  end
end
return {'found', asked, followed}
