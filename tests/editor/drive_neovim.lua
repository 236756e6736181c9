-- Drives the Neovim configuration of extension-proto/editors as a user does; writes what was seen to $SEEN as JSON.
local seen = {}
local encode = vim.json and vim.json.encode or vim.fn.json_encode

local function until_true(what, look, ms)
  local ok = vim.wait(ms or 15000, function()
    local fine, result = pcall(look)
    return fine and result
  end, 20)
  assert(ok, 'not seen: ' .. what)
end

local function text(bufnr)
  return table.concat(vim.api.nvim_buf_get_lines(bufnr or 0, 0, -1, false), '\n')
end

local function main()
  vim.opt.runtimepath:prepend(vim.env.EDITORS)
  package.path = vim.env.EDITORS .. '/?.lua;' .. package.path
  local nightschool = require('nightschool')
  nightschool.setup({ cmd = { vim.env.PYTHON, '-m', 'server.lsp' } })
  vim.cmd('filetype on')
  vim.cmd('edit reader.py')
  until_true('a client', function()
    local client = nightschool.client()
    return client and client.server_capabilities and client.server_capabilities.codeActionProvider
  end)
  local client = nightschool.client()
  seen.encoding = client.offset_encoding
  local source = vim.api.nvim_get_current_buf()

  -- :NightschoolAsk over a selection, watched while it streams.
  local lengths = {}
  vim.cmd('1,2NightschoolAsk How is a file read?')
  local answer = vim.api.nvim_get_current_buf()
  until_true('the sources of the answer', function()
    lengths[#text(answer)] = true
    return text(answer):find('[1] reader.py:1', 1, true)
  end)
  seen.steps = vim.tbl_count(lengths)
  seen.answer = text(answer)
  vim.cmd('bwipeout!')

  -- The command, with no plugin at all.
  vim.api.nvim_set_current_buf(source)
  local asked = { command = 'nightschool.ask', arguments = { 'What?' } }
  local request_sync = client.request_sync
  local method = 'workspace/executeCommand'
  local reply = vim.fn.has('nvim-0.11') == 1 and client:request_sync(method, asked, 10000, source)
    or request_sync(method, asked, 10000, source)
  seen.command = reply.result.answer

  -- An answer that is stopped.
  vim.cmd('NightschoolAsk slow')
  answer = vim.api.nvim_get_current_buf()
  until_true('a slow answer begins', function()
    return text(answer):find('word word', 1, true)
  end)
  nightschool.stop()
  vim.cmd('bwipeout!')
  vim.api.nvim_set_current_buf(source)

  if vim.lsp.inline_completion then
    vim.cmd('edit dos.py')
    vim.wait(3000, function()
      return #vim.lsp.get_clients({ bufnr = 0 }) > 0
    end, 20)
    vim.api.nvim_win_set_cursor(0, { 1, 0 })
    vim.api.nvim_feedkeys(vim.api.nvim_replace_termcodes('A ', true, false, true), 'n', false)
    local namespace = vim.api.nvim_get_namespaces()['nvim.lsp.inline_completion']
    vim.schedule(function()
      vim.wait(8000, function()
        namespace = vim.api.nvim_get_namespaces()['nvim.lsp.inline_completion']
        local marks = namespace and vim.api.nvim_buf_get_extmarks(0, namespace, 0, -1, { details = true }) or {}
        seen.ghost = marks[1] and marks[1][4].virt_text and marks[1][4].virt_text[1][1]
        return seen.ghost
      end, 20)
      vim.lsp.inline_completion.get()
      vim.wait(3000, function()
        return text():find('accepted', 1, true)
      end, 20)
      seen.accepted = vim.api.nvim_buf_get_lines(0, 0, 1, false)[1]
      vim.cmd('stopinsert')
    end)
    vim.api.nvim_feedkeys('', 'x!', false)
  end
end

local ok, err = xpcall(main, debug.traceback)
seen.error = not ok and tostring(err) or nil
local file = assert(io.open(vim.env.SEEN, 'w'))
file:write(encode(seen))
file:close()
vim.cmd('qa!')
