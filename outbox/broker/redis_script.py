"""The script that Redis runs to move messages to the unacknowledged ones; see `redis_batches`."""

from __future__ import annotations

import hashlib

TAKE = """
local index, unacked = KEYS[1], KEYS[2]
local acknowledged = tonumber(ARGV[1])
if acknowledged > 0 then
    local tags = {unpack(ARGV, 2, acknowledged + 1)}
    redis.call('ZREM', index, unpack(tags))
    redis.call('HDEL', unacked, unpack(tags))
end
local at = acknowledged + 2
local most, room, prefix = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 2]
local queues, in_turns = tonumber(ARGV[at + 3]), ARGV[at + 4] == '1'
local now = redis.call('TIME')
local score = now[1] .. '.' .. string.format('%06d', now[2])
local found, from, refused, with_priority = {''}, {}, nil, ''

local function take(position, queue)
    local key = KEYS[position]
    local item = redis.pcall('LINDEX', key, -1)
    if type(item) == 'string' then
        local tag = prefix .. #found
        local kept = redis.pcall('ZADD', index, score, tag)
        if type(kept) ~= 'table' then
            kept = redis.pcall('HSET', unacked, tag, '[' .. item .. ARGV[at + 4 + queue])
            if type(kept) == 'table' then
                redis.call('ZREM', index, tag)
            end
        end
        if type(kept) == 'table' then
            refused, most = kept, 0
            return false
        end
        redis.call('RPOP', key)
        found[#found + 1] = item
        from[#from + 1] = queue
        if position > 2 + 2 * queues then
            with_priority = '!'
        end
        most, room = most - 1, room - #item
        return most > 0 and room > 0
    end
    if type(item) == 'table' then
        refused = item
    end
    return false
end

for first = 3, #KEYS, queues do
    local again = most > 0 and room > 0
    while again do
        again = false
        for queue = 1, queues do
            local more = most > 0 and room > 0 and take(first + queue - 1, queue)
            while more and not in_turns do
                more = take(first + queue - 1, queue)
            end
            again = again or more
        end
    end
end
if refused and #from == 0 then
    return refused
end
found[1] = with_priority .. table.concat(from, ',')
return found
"""
"""
Keys: the index and the hash of unacknowledged messages, then for each level the lists of all queues. Arguments:
the number of acknowledged tags and the tags, the maximum number of messages and of bytes, the prefix of their
tags, the number of queues, whether queues take turns, and for each queue what follows an item in the hash.
Returns from which queues messages were taken, after a mark if one had a priority, then the messages. A message
is recorded before it is popped, because a server without memory refuses to record it.
"""

NAME = hashlib.sha1(TAKE.encode(), usedforsecurity=False).hexdigest()
"""How Redis names the script: by its SHA-1."""
