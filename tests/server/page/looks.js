// What the page looks like, measured in it: `{ faintest: [ratio, element], outside: [elements] }`.
(() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

  function rgba(color) {
    paint.clearRect(0, 0, 1, 1);
    paint.fillStyle = color;
    paint.fillRect(0, 0, 1, 1);
    return paint.getImageData(0, 0, 1, 1).data;
  }

  // Relative luminance and contrast as WCAG 2 defines them.
  const linear = (part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);

  function ground(element) {
    for (let one = element; one; one = one.parentElement) {
      const color = rgba(getComputedStyle(one).backgroundColor);
      if (color[3] === 255) return color;
    }
    return rgba("white");
  }

  function contrast(element) {
    const [light, dark] = [luminance(rgba(getComputedStyle(element).color)), luminance(ground(element))].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  }

  const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  const isShown = (element) => element.checkVisibility() && !element.closest("svg, :disabled, label:has(:disabled)");
  const texts = [...document.querySelectorAll("body *")].filter((element) => isShown(element) && hasText(element));
  const ratios = texts.map((element) => [contrast(element), element.outerHTML.slice(0, 80)]).sort((a, b) => a[0] - b[0]);

  const boxes = [...document.querySelectorAll("body, main, .history *, .turns, .answer, .card, .passage, .composer")];
  const outside = boxes.filter((element) => {
    const holder = element.closest(".history")?.getBoundingClientRect().right ?? innerWidth;
    return element.checkVisibility() && element.getBoundingClientRect().right > holder + 1;
  });
  return { faintest: ratios[0], outside: outside.map((element) => element.outerHTML.slice(0, 80)), wide: document.documentElement.scrollWidth > innerWidth };
})();
