// Bundle the extension and its web view into out/; with --test the tests too. No source maps: they would be packaged.
import { build } from "esbuild";

const shared = { bundle: true, logLevel: "warning", minify: true };
await build({ ...shared, entryPoints: ["src/extension.ts"], outfile: "out/extension.js", platform: "node", format: "cjs", target: "node20", external: ["vscode"] });
await build({ ...shared, entryPoints: ["src/view/main.ts"], outfile: "out/view.js", platform: "browser", format: "iife", target: "chrome120", minify: true });
if (process.argv.includes("--test")) {
  await build({ ...shared, entryPoints: ["test/markdown.test.ts", "test/conversation.test.ts"], outdir: "out/test", platform: "node", format: "cjs", target: "node20" });
}
