package redisstore

// The scripts. Each runs alone on the server, on the keys of one shard: all of them are declared
// and share a hash tag, so that a cluster has them in one slot. They read the server's clock and
// write after it, which needs the replication of effects: the default since Redis 5.
//
// A script that finds no memory is refused at its first write, before it has changed anything, and
// may write what it likes after one that frees memory. So a claim is refused when the server is
// full, and a completion is not: it deletes its claim first.

// clockPart reads the shard's clock and buckets. The clock is the server's, and runs on where that
// one is set back: what it lost is added from then on, so that no lease and no window gets longer.
//
//	KEYS  1 meta · 2 claims · 3… the ring of buckets
//	ARGV  1 a bucket's width in ms · 2 the window in ms
//	meta  last: the server's clock at the last write · offset: what is added to it
//	      fence: the greatest so far · swept, cursor: see sweep · b0…: which bucket is in the ring
//
// A bucket's number is its begin divided by the width; it stands in the ring at its number modulo
// the ring's length. It goes whole, when the last key that it may hold is out of the window.
// A step back of the server's clock by less than half a bucket may go unseen: all buckets are
// looked at, also one that begins later.
const clockPart = `
local width, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local ring = #KEYS - 2
local clock = redis.call('TIME')
local micros = clock[1] * 1000000 + clock[2]
local wall = math.floor(micros / 1000)

local names = {'last', 'offset', 'fence', 'swept', 'cursor'}
for i = 0, ring - 1 do names[#names + 1] = 'b' .. i end
local meta = redis.call('HMGET', KEYS[1], unpack(names))
local last, offset, fence = tonumber(meta[1] or 0), tonumber(meta[2] or 0), tonumber(meta[3] or 0)
local dirty = wall < last or wall > last + math.min(1000, width / 2)
if wall < last then offset = offset + last - wall end
local now = wall + offset
local current = math.floor(now / width)

local function text(n) return string.format('%.0f', n) end

local buckets = {}
for i = 0, ring - 1 do
  local b = tonumber(meta[6 + i] or -1)
  if b >= 0 and b + ring <= current then
    redis.call('UNLINK', KEYS[3 + i])
    redis.call('HDEL', KEYS[1], 'b' .. i)
    b, dirty = -1, true
  end
  buckets[i] = b
end

local function save()
  if dirty then
    redis.pcall('HSET', KEYS[1], 'last', text(wall), 'offset', text(offset), 'fence', text(fence))
  end
end

local function claim_of(key)
  local v = redis.call('HGET', KEYS[2], key)
  if not v then return nil end
  local f, e, t, rest = string.match(v, '^(%d+) (%d+) (%d) (.*)$')
  return {fence = f, ends = tonumber(e), takeover = t, nonce = string.sub(rest, 1, 16),
    sum = string.sub(rest, 17, 32)}
end

local function pack_claim(c)
  return c.fence .. ' ' .. text(c.ends) .. ' ' .. c.takeover .. ' ' .. c.nonce .. c.sum
end

local function done_of(key)
  for i = 0, ring - 1 do
    if buckets[i] >= 0 then
      local v = redis.call('HGET', KEYS[3 + i], key)
      if v then
        local f, t, rest = string.match(v, '^(%d+) (%d+) (.*)$')
        return {fence = f, time = tonumber(t), sum = string.sub(rest, 1, 16),
          result = string.sub(rest, 17)}
      end
    end
  end
  return nil
end
`

// claimScript answers asks.
//
//	ARGV   3 the bound · then of each ask: key, sum, lease in ms, nonce
//	reply  of each ask: {"claimed", fence, takeover} {"done", time, result} {"busy", wait}
//	       {"conflict"} {"full", keys held} {"memory"}
//
// The nonce belongs to the ask: one that comes again, because the answer to it was lost, finds its
// own claim.
const claimScript = clockPart + `
local zero = string.rep('\0', 16)
local function differs(a, b) return a ~= b and a ~= zero and b ~= zero end

local held
local function full()
  if not held then
    held = redis.call('HLEN', KEYS[2])
    for i = 0, ring - 1 do
      if buckets[i] >= 0 then held = held + redis.call('HLEN', KEYS[3 + i]) end
    end
  end
  return held >= tonumber(ARGV[3])
end

local function claim(key, sum, lease, nonce)
  local d = done_of(key)
  if d then
    if differs(sum, d.sum) then return {'conflict'} end
    return {'done', d.time, d.result}
  end
  local c = claim_of(key)
  if c then
    if c.nonce == nonce then return {'claimed', tonumber(c.fence), tonumber(c.takeover)} end
    if differs(sum, c.sum) then return {'conflict'} end
    if now < c.ends then return {'busy', c.ends - now} end
    if sum == zero then sum = c.sum end
  elseif full() then
    return {'full', held}
  end
  -- By the clock that runs on: a fence that a failover lost does not come again, also where the
  -- server's own clock stands behind the greatest.
  local f = math.max(fence + 1, micros + offset * 1000)
  local new = {fence = text(f), ends = now + lease, takeover = c and '1' or '0', nonce = nonce,
    sum = sum}
  local r = redis.pcall('HSET', KEYS[2], key, pack_claim(new))
  if type(r) == 'table' and r.err then
    if string.find(r.err, 'OOM', 1, true) then return {'memory'} end
    return r
  end
  fence, dirty = f, true
  if not c then held = held + 1 end
  return {'claimed', f, tonumber(new.takeover)}
end

-- Claims that ran out a window ago are forgotten, a hundred looked at every tenth of a second.
local function sweep()
  if now < tonumber(meta[4] or 0) + 100 then return end
  local page = redis.call('HSCAN', KEYS[2], meta[5] or '0', 'COUNT', 100)
  for i = 1, #page[2], 2 do
    local ends = string.match(page[2][i + 1], '^%d+ (%d+)')
    if now >= tonumber(ends) + window then redis.call('HDEL', KEYS[2], page[2][i]) end
  end
  redis.pcall('HSET', KEYS[1], 'swept', text(now), 'cursor', page[1])
end

local answers = {}
for i = 4, #ARGV, 4 do
  local a = claim(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3])
  if a.err then return a end
  answers[#answers + 1] = a
end
sweep()
save()
return answers
`

// settleScript settles claims.
//
//	ARGV   3… of each settlement: verb, key, fence, lease in ms, result
//	reply  of each: 1 = carried out, or was before · 0 = the claim is no longer held
const settleScript = clockPart + `
local function complete(key, c, result)
  local i = current % ring
  redis.call('HDEL', KEYS[2], key)
  redis.call('HSET', KEYS[3 + i], key, c.fence .. ' ' .. text(wall) .. ' ' .. c.sum .. result)
  if buckets[i] ~= current then
    buckets[i] = current
    redis.call('HSET', KEYS[1], 'b' .. i, text(current))
    -- A store that nobody uses any more leaves nothing behind.
    redis.call('PEXPIRE', KEYS[3 + i], text((current + ring + 1) * width - now))
  end
end

local function settle(verb, key, by, lease, result)
  local c = claim_of(key)
  if not c then
    local d = done_of(key)
    if verb == 'complete' then return d and d.fence == by end
    return verb == 'release' and not d
  end
  if c.fence ~= by then return false end
  if verb == 'complete' then
    complete(key, c, result)
  elseif verb == 'release' then
    redis.call('HDEL', KEYS[2], key)
  else
    c.ends = now + lease
    redis.call('HSET', KEYS[2], key, pack_claim(c))
  end
  dirty = true
  return true
end

local results = {}
for i = 3, #ARGV, 5 do
  local ok = settle(ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), ARGV[i + 4])
  results[#results + 1] = ok and 1 or 0
end
save()
return results
`

// configScript keeps, of a name, what all of its users must agree on: the first one's word counts.
// ARGV are pairs of field and value; it replies with what is kept of these fields.
const configScript = `
local names = {}
for i = 1, #ARGV, 2 do
  redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
  names[#names + 1] = ARGV[i]
end
return redis.call('HMGET', KEYS[1], unpack(names))
`
