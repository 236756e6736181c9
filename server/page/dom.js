// Making elements. The only place that turns text into HTML is `setRendered`, for what the server rendered.

/** An element with attributes, listeners (`onclick`) and children; what is null, undefined or false is left out. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An element of SVG. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Shows what /ui/render or /ui/code gave back, which is safe by itself. */
export function setRendered(element, html) {
  element.innerHTML = html;
}

/** Ask before something that cannot be undone; resolves to whether the user agreed. */
export function confirmed(question, action) {
  return new Promise((resolve) => {
    const dialog = el("dialog", { "aria-label": question }, el("p", {}, question));
    const end = (agreed) => { dialog.close(); dialog.remove(); resolve(agreed); };
    const yes = el("button", { type: "button", class: "primary", onclick: () => end(true) }, action);
    dialog.append(el("p", { class: "row" }, yes, el("button", { type: "button", onclick: () => end(false) }, "Cancel")));
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); end(false); });
    document.body.append(dialog);
    dialog.showModal();
    yes.focus();
  });
}
