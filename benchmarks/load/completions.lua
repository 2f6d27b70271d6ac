-- For wrk: completion requests, each with a prompt of its own. Arguments: text, tokens, a number that makes them new.
local head = { ["Content-Type"] = "application/json" }
local number = 0

function init(args)
  text, tokens, run = args[1], args[2], args[3]
end

function request()
  number = number + 1
  local body = '{"model":"load","prompt":"' .. run .. '-' .. number .. '. ' .. text ..
    '","max_tokens":' .. tokens .. ',"temperature":0}'
  return wrk.format("POST", nil, head, body)
end
