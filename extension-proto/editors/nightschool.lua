-- nightschool in Neovim 0.7 and later. Put it on the runtime path as lua/nightschool.lua, and in init.lua:
--   require('nightschool').setup()                        -- or setup{ cmd = { '/path/to/nightschool', 'lsp' } }
-- :NightschoolAsk how is the index kept fresh?            -- also over a selection; the answer streams into a split
-- :NightschoolStop   :NightschoolStatus   and the code actions of vim.lsp.buf.code_action()
-- Ghost text (Neovim 0.12, and a base model that can fill in the middle): <Tab> accepts it.
local M = {
  cmd = { 'nightschool', 'lsp' },
  root_markers = { 'nightschool.toml', '.git' },
  options = {},
  ghost_text = true,
}
local streams = {} -- partial result token -> function(value)
local running = nil -- { client, request id } of the answer that is being written
local client_id = nil -- where vim.lsp.start_client keeps no names (before 0.11)
local is_new = vim.fn.has('nvim-0.11') == 1

local function request(client, method, params, handler, bufnr)
  if is_new then
    return client:request(method, params, handler, bufnr)
  end
  return client.request(method, params, handler, bufnr)
end

local function on_progress(err, params, ctx, config)
  local show = params and streams[params.token]
  if show then
    return show(params.value)
  end
  local default = vim.lsp.handlers['$/progress']
  return default and default(err, params, ctx, config)
end

function M.client()
  if is_new then
    return vim.lsp.get_clients({ name = 'nightschool' })[1]
  end
  return client_id and vim.lsp.get_client_by_id(client_id)
end

-- A split for the answer, and a function that adds text at its end.
local function open_answer(title)
  vim.cmd('botright new')
  local bufnr = vim.api.nvim_get_current_buf()
  vim.bo[bufnr].buftype = 'nofile'
  vim.bo[bufnr].bufhidden = 'wipe'
  vim.bo[bufnr].filetype = 'markdown'
  vim.api.nvim_buf_set_lines(bufnr, 0, -1, false, { '# ' .. title, '', '' })
  return bufnr, function(text)
    if not vim.api.nvim_buf_is_valid(bufnr) then
      return
    end
    local last = vim.api.nvim_buf_get_lines(bufnr, -2, -1, false)[1]
    local lines = vim.split(last .. text:gsub('\r\n', '\n'), '\n', { plain = true })
    vim.api.nvim_buf_set_lines(bufnr, -2, -1, false, lines)
  end
end

local function selection(command)
  if not command or command.range == 0 then
    return nil
  end
  local from, to = command.line1 - 1, command.line2
  return { start = { line = from, character = 0 }, ['end'] = { line = to, character = 0 } }
end

-- Ask `question` about the current buffer; `range` is an LSP range or nil. The answer streams into a split.
function M.ask(question, range)
  local client = M.client()
  if not client then
    return vim.notify('nightschool: the language server does not run', vim.log.levels.ERROR)
  end
  local token = 'nightschool-' .. vim.loop.hrtime()
  local params = { question = question, range = range, partialResultToken = token }
  params.textDocument = { uri = vim.uri_from_bufnr(0) }
  local source = vim.api.nvim_get_current_buf()
  local _, add = open_answer(question)
  streams[token] = function(value)
    add(value.kind == 'notice' and ('> ' .. value.text .. '\n\n') or value.text)
  end
  local _, id = request(client, 'nightschool/ask', params, function(err, result)
    streams[token], running = nil, nil
    if err then
      return add('\n\n> ' .. err.message)
    end
    add('\n')
    for _, citation in ipairs(result.citations) do
      add(('\n[%d] %s:%d'):format(citation.index, citation.path, citation.startLine))
    end
    vim.b.nightschool_answer = result.answer
  end, source)
  running = { client = client, id = id }
end

function M.stop()
  if running then
    if is_new then
      running.client:cancel_request(running.id)
    else
      running.client.cancel_request(running.id)
    end
    running = nil
  end
end

function M.status()
  local client = M.client()
  return client and request(client, 'workspace/executeCommand', { command = 'nightschool.status' }, function() end, 0)
end

local function show_ghost_text(client, bufnr)
  if M.ghost_text and vim.lsp.inline_completion and client.server_capabilities.inlineCompletionProvider then
    vim.lsp.inline_completion.enable(true, { bufnr = bufnr })
    vim.keymap.set('i', '<Tab>', function()
      if not vim.lsp.inline_completion.get() then
        return '<Tab>'
      end
    end, { buffer = bufnr, expr = true, desc = 'Accept ghost text' })
  end
end

-- Before 0.11: one client, started with the first file, and every further file attached to it.
local function attach_old(bufnr)
  if vim.bo[bufnr].buftype ~= '' then
    return
  end
  if not client_id then
    local here = vim.api.nvim_buf_get_name(bufnr)
    local found = vim.fs and vim.fs.find and vim.fs.find(M.root_markers, { path = here, upward = true })[1]
    local root = found and vim.fs.dirname(found) or vim.fn.getcwd()
    client_id = vim.lsp.start_client({
      name = 'nightschool',
      cmd = M.cmd,
      root_dir = root,
      workspace_folders = { { uri = vim.uri_from_fname(root), name = root } },
      init_options = M.options,
      handlers = { ['$/progress'] = on_progress },
      on_exit = function()
        client_id = nil
      end,
    })
  end
  if client_id then
    vim.lsp.buf_attach_client(bufnr, client_id)
  end
end

function M.setup(options)
  for name, value in pairs(options or {}) do
    M[name] = value
  end
  local command = vim.api.nvim_create_user_command
  command('NightschoolAsk', function(c)
    M.ask(c.args, selection(c))
  end, { nargs = '+', range = true })
  command('NightschoolStop', M.stop, {})
  command('NightschoolStatus', M.status, {})
  if is_new then
    vim.lsp.config('nightschool', {
      cmd = M.cmd,
      root_markers = M.root_markers,
      init_options = M.options,
      handlers = { ['$/progress'] = on_progress },
      on_attach = show_ghost_text,
    })
    vim.lsp.enable('nightschool')
  else
    local events = { 'BufReadPost', 'BufNewFile' }
    vim.api.nvim_create_autocmd(events, {
      callback = function(event)
        attach_old(event.buf)
      end,
    })
  end
end

return M
