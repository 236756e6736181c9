// Drives a real VS Code in Chromium through what a user does, and prints what was seen as one JSON object.
// node drive_vscode.mjs '{"vscode", "state", "workspace", "backend", "token", "shots", "port"}'
import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const given = JSON.parse(process.argv[2]);
const { chromium } = createRequire(join(given.vscode, "package.json"))("playwright-core");
const seen = {};
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(look, what, ms = 20000) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await Promise.resolve().then(look).catch(() => undefined);
    if (found) return found;
    if (Date.now() > end) throw new Error(`not seen: ${what}`);
    await wait(60);
  }
}

const settings = (theme) =>
  writeFileSync(join(given.state, "data/User/settings.json"), JSON.stringify({
    "telemetry.telemetryLevel": "off", "workbench.startupEditor": "none", "update.mode": "none", "extensions.autoUpdate": false,
    "extensions.autoCheckUpdates": false, "extensions.ignoreRecommendations": true, "security.workspace.trust.enabled": false,
    "workbench.tips.enabled": false, "files.simpleDialog.enable": true, "editor.minimap.enabled": false, "chat.commandCenter.enabled": false,
    "workbench.secondarySideBar.defaultVisibility": "hidden", "editor.inlineSuggest.enabled": true, "editor.quickSuggestions": "off",
    "nightschool.command": given.command, "workbench.colorTheme": theme,
  }));

const script = (change) =>
  fetch(`${given.backend}/_script`, { method: "POST", headers: { Authorization: `Bearer ${given.token}` }, body: JSON.stringify(change) });

function startServer() {
  mkdirSync(join(given.state, "data/User"), { recursive: true });
  mkdirSync(join(given.state, "home"), { recursive: true });
  settings("Default Dark Modern");
  writeFileSync(join(given.state, "config.yaml"), `bind-addr: 127.0.0.1:${given.port}\nauth: none\ncert: false\n`);
  const entry = join(given.vscode, "node_modules/code-server/out/node/entry.js");
  const args = [entry, "--config", join(given.state, "config.yaml"), "--auth", "none", "--disable-telemetry", "--disable-update-check",
    "--disable-workspace-trust", "--disable-getting-started-override", "--user-data-dir", join(given.state, "data"), "--extensions-dir", join(given.state, "ext")];
  const env = { HOME: join(given.state, "home"), PATH: process.env.PATH, EXTENSIONS_GALLERY: '{"serviceUrl":""}' };
  return spawn(process.execPath, args, { env, stdio: ["ignore", "ignore", "inherit"] });
}

async function palette(page, title) {
  await page.keyboard.press("F1");
  const input = page.locator(".quick-input-widget input").first();
  await input.waitFor();
  await input.fill(`>${title}`);
  await page.locator(".quick-input-list .monaco-list-row", { hasText: title }).first().click();
}

async function shot(page, name) {
  await wait(600); // toasts and panels slide in
  if (given.shots) await page.screenshot({ path: join(given.shots, `${name}.png`) });
}

async function openFile(page, name) {
  await page.keyboard.press("Control+P");
  const input = page.locator(".quick-input-widget input").first();
  await input.waitFor();
  await input.fill(name);
  await page.locator(".quick-input-list .monaco-list-row", { hasText: name }).first().click();
  await page.locator(".tab.active", { hasText: name }).waitFor();
}

async function drive(page) {
  const consoleErrors = [];
  page.on("console", (message) => message.type() === "error" && consoleErrors.push(message.text()));
  await page.goto(`http://127.0.0.1:${given.port}/?folder=${given.workspace}`);
  await page.locator(".monaco-workbench").waitFor({ timeout: 60000 });
  await openFile(page, "reader.py");
  const bar = page.locator("#nightschool\\.status, [id='nightschool.nightschool.nightschool.status'], .statusbar-item", { hasText: "2026-11-23-abc" });
  await until(() => bar.first().isVisible(), "the adapter in the status bar", 40000);
  seen.statusBar = (await bar.first().innerText()).trim();

  // Ask, watch the answer stream.
  await palette(page, "nightschool: Ask a Question");
  const chat = await until(async () => {
    const frame = page.frameLocator("iframe.webview.ready").frameLocator("#active-frame");
    return (await frame.locator("#question").count()) ? frame : undefined;
  }, "the chat view", 30000);
  await script({ piece_wait_s: 0.3 }); // a busy machine draws two or three times a second
  await chat.locator("#question").fill("How is a file read?");
  await chat.locator("#question").press("Enter");
  const lengths = new Set();
  await until(async () => {
    lengths.add((await chat.locator("article .answer").last().innerText()).length);
    return (await chat.locator("article").last().getAttribute("data-state")) === "done";
  }, "a whole answer");
  seen.streamedSteps = lengths.size;
  seen.answer = await chat.locator("article .answer").last().innerText();
  seen.highlighted = await chat.locator("article .hljs-keyword").count();
  seen.sources = await chat.locator("article .sources").last().innerText();
  seen.freshness = await chat.locator("article .freshness").last().innerText();
  seen.links = await chat.locator("article a:not(.citation), article img").count();
  await shot(page, "vscode-chat-dark");

  // Click a citation and land on the line.
  await openFile(page, "dos.py");
  await chat.locator("article .answer a.citation").last().click();
  await page.locator(".tab.active", { hasText: "reader.py" }).waitFor();
  seen.landed = await until(async () => {
    const text = await page.locator(".statusbar-item", { hasText: /Ln \d+, Col \d+/ }).first().innerText();
    return text.includes("selected") ? text.trim() : undefined;
  }, "the cited lines selected");

  // Stop an answer, and ask again.
  await script({ piece_wait_s: 0.2, pieces: Array(100).fill("word ") });
  await chat.locator("#question").fill("Say much");
  await chat.locator("#question").press("Enter");
  await until(async () => (await chat.locator("article .answer").last().innerText()).length > 10, "a second answer begins");
  await chat.locator("#send").click();
  await until(async () => (await chat.locator("article").last().getAttribute("data-state")) === "stopped", "the answer stopped");
  seen.stopped = true;
  await script({ piece_wait_s: 0, pieces: ["Retried."] });
  await palette(page, "nightschool: Ask the Last Question Again");
  await until(async () => (await chat.locator("article .answer").last().innerText()).includes("Retried."), "the retried answer");
  seen.retried = (await chat.locator("article").count()) === 2;

  // A code action of the server is answered in the chat.
  await page.locator(".monaco-editor .view-line").first().click();
  await page.keyboard.press("Control+A");
  await page.keyboard.press("Control+.");
  const action = page.locator(".action-widget .monaco-list-row", { hasText: "nightschool: Explain" });
  await action.first().waitFor();
  await shot(page, "vscode-code-actions");
  await page.keyboard.press("ArrowDown"); // a click is caught by the widget's own cover
  await page.keyboard.press("Enter");
  await until(async () => (await chat.locator("article .question").last().innerText()) === "Explain the selection", "the code action's question");
  await until(async () => (await chat.locator("article").last().getAttribute("data-state")) === "done", "the code action's answer");
  seen.codeAction = true;

  // Ghost text: shown, accepted.
  await script({ ready: { fim: true }, completion: "  # accepted 😀" });
  await openFile(page, "dos.py");
  await wait(2500); // the server looks every 2 s
  await page.locator(".monaco-editor .view-line").first().click();
  await page.keyboard.press("End");
  await page.keyboard.type(" ");
  await until(() => page.locator(".ghost-text-decoration, .ghost-text").first().isVisible(), "ghost text");
  await shot(page, "vscode-ghost-text");
  await page.keyboard.press("Tab");
  seen.ghost = await until(async () => {
    const line = await page.locator(".monaco-editor .view-line").first().innerText();
    return line.includes("accepted") ? line : undefined;
  }, "accepted ghost text");

  // The status follows a save and a promoted night.
  await script({ freshness: { waiting_files: 2, seconds_behind: 3.0 } });
  await page.keyboard.press("Control+S");
  seen.afterSave = await until(async () => {
    const text = (await bar.first().innerText()).trim();
    return text !== seen.statusBar ? text : undefined;
  }, "the status after a save");
  const night = { version: "2026-11-24-0230-def", created_at: "2026-11-24T02:30:00Z", losses: { held_out_before: 2.1, held_out_after: 1.7 } };
  await script({ freshness: {}, ready: { adapter: night.version }, adapters: { in_service: night.version, adapters: [night] },
    nights: { last: { outcome: "promoted", reason: "", version: night.version, ended_at: "2026-11-24T02:55:00Z" } } });
  const promoted = page.locator(".statusbar-item", { hasText: night.version });
  await until(() => promoted.first().isVisible(), "the promoted adapter in the status bar");
  seen.afterNight = (await promoted.first().innerText()).trim();
  await palette(page, "nightschool: Show Status");
  seen.status = await until(async () => (await page.locator(".quick-input-list").innerText()).includes("Last night") && page.locator(".quick-input-list").innerText(), "the status list");
  await shot(page, "vscode-status");
  await page.locator(".quick-input-list .monaco-list-row", { hasText: "Ghost text" }).click(); // cut in the list
  await page.locator(".notification-toast", { hasText: "cannot fill in the middle" }).waitFor();
  await palette(page, "Notifications: Clear All Notifications");

  // The other themes.
  for (const [theme, name, mark] of [["Light Modern", "light", "vs"], ["Dark High Contrast", "high-contrast", "hc-black"]]) {
    await palette(page, "Preferences: Color Theme");
    await page.locator(".quick-input-widget input").first().fill(theme);
    await wait(700);
    await page.keyboard.press("Enter");
    const workbench = page.locator(".monaco-workbench");
    await until(async () => (await workbench.getAttribute("class")).split(/\s+/).includes(mark), theme);
    seen.themes = [...(seen.themes ?? []), await chat.locator("body").evaluate((body) => getComputedStyle(body).color)];
    await shot(page, `vscode-chat-${name}`);
  }

  // The backend goes: the view says so and how to mend it.
  await script({ stop: true });
  await until(() => chat.locator("#welcome button").first().isVisible(), "the welcome view", 15000);
  seen.welcome = await chat.locator("#welcome").innerText();
  seen.consoleErrors = consoleErrors.filter((text) => text.includes("nightschool"));
  await shot(page, "vscode-welcome");
}

const server = startServer();
let browser;
try {
  await until(async () => (await fetch(`http://127.0.0.1:${given.port}/healthz`)).ok, "code-server", 40000);
  browser = await chromium.launchPersistentContext(join(given.state, "chromium"), {
    executablePath: given.chromium, headless: true, viewport: { width: 1280, height: 800 },
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  const page = browser.pages()[0] ?? (await browser.newPage());
  try {
    await drive(page);
  } catch (error) {
    seen.error = String(error);
    if (given.shots) await page.screenshot({ path: join(given.shots, "failed.png") });
  }
} catch (error) {
  seen.error = String(error);
} finally {
  await browser?.close();
  const gone = new Promise((resolve) => server.once("exit", resolve));
  server.kill("SIGTERM");
  await Promise.race([gone, wait(8000)]);
}
process.stdout.write(`${JSON.stringify(seen)}\n`, () => process.exit(seen.error ? 1 : 0));
