// What the page's other modules are written with.

export const $ = (id) => document.getElementById(id);
const BASE = new URL(".", document.baseURI);
export const urlOf = (path) => new URL(path.replace(/^\//, ""), BASE).href;
export const KEY = "genimg-key"; // in sessionStorage, which ends with the tab

/** An element with properties (or attributes, where it has no such property) and children. */
export function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export const pressable = (text, onclick, more = {}) =>
  make("button", { type: "button", onclick, ...more }, text);
export const saved = (href, download, text) => make("a", { href, download }, text);

export function download(blob, name) {
  const link = saved(URL.createObjectURL(blob), name, "");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
