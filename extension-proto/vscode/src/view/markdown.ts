/** An answer as HTML: code is highlighted, the citations are links, and nothing that the model wrote is a link or an image. */

import hljs from "highlight.js/lib/common";
import MarkdownIt from "markdown-it";
import type { Citation } from "../protocol";

/** HTML of `markdown`. A link is one only if it leads to one of `citations`; its `data-citation` is that one's index. */
export function renderMarkdown(markdown: string, citations: Citation[]): string {
  const places = new Map(citations.map((c) => [`${c.uri}#L${c.startLine}`, c]));
  const md = new MarkdownIt({ html: false, linkify: false, highlight });
  md.disable("image");
  md.normalizeLink = (url) => url;
  md.validateLink = (url) => places.has(url);
  md.renderer.rules["link_open"] = (tokens, at) => {
    const citation = places.get(String(tokens[at]?.attrGet("href")));
    if (!citation) return "<span>";
    const where = escape(`${citation.path}:${citation.startLine}-${citation.endLine}`);
    return `<a href="#" class="citation" data-citation="${citation.index}" title="${where}" aria-label="Source ${citation.index}, ${where}">`;
  };
  return md.render(markdown);
}

function highlight(code: string, language: string): string {
  const known = hljs.getLanguage(language) ? language : "";
  return known ? hljs.highlight(code, { language: known, ignoreIllegals: true }).value : escape(code);
}

export function escape(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}
