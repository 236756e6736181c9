// Curves as SVG: an axis with round numbers, and the first and the last value in words for who cannot see them.
import { svg } from "./dom.js";

const WIDTH = 640, HEIGHT = 190, LEFT = 72, RIGHT = 12, TOP = 14, BOTTOM = 28;

/** A line through `points` ([x, y], x rising; `x` names it). `format` turns a y into words; `zero` draws y = 0. */
export function curve(points, { x, format, zero = false, label }) {
  const ys = points.map((point) => point[1]).concat(zero ? [0] : []);
  const [low, high] = widened(Math.min(...ys), Math.max(...ys));
  const [first, last] = [points[0][0], points.at(-1)[0]];
  const across = (value) => LEFT + ((WIDTH - LEFT - RIGHT) * (value - first)) / (last - first || 1);
  const up = (value) => TOP + ((HEIGHT - TOP - BOTTOM) * (high - value)) / (high - low);
  const words = `${label}: ${format(points[0][1])} at first, ${format(points.at(-1)[1])} at last, ${x} ${first} to ${last}`;
  const ticks = roundBetween(low, high);
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": words, class: "chart" },
    ...ticks.flatMap((value) => [
      svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: up(value), y2: up(value), class: "grid" }),
      svg("text", { x: LEFT - 8, y: up(value) + 5, "text-anchor": "end" }, format(value)),
    ]),
    ...(zero ? [svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: up(0), y2: up(0), class: "zero" })] : []),
    svg("polyline", { points: points.map(([at, value]) => `${across(at).toFixed(1)},${up(value).toFixed(1)}`).join(" ") }),
    ...(points.length <= 30 ? points.map(([at, value]) => svg("circle", { cx: across(at), cy: up(value), r: 3 })) : []),
    svg("text", { x: LEFT, y: HEIGHT - 6 }, `${x} ${first}`),
    svg("text", { x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, `${x} ${last}`));
}

/** Three to six round numbers between two others. */
function roundBetween(low, high) {
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, at) => (first + at) * step);
}

function widened(low, high) {
  const room = (high - low || Math.abs(high) || 1) * 0.05;
  return [low - room, high + room];
}
