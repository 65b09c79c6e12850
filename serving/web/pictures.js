// Answers to look at: images, before beside after, tables, animations.

import { make, pressable } from "./elements.js";

/** An image; a small one enlarged by a whole factor. */
export function picture(src, alt) {
  const image = make("img", { src, alt });
  image.onload = () => enlarge(image, image);
  return image;
}

function enlarge(image, element) {
  const factor = Math.max(1, Math.floor(320 / image.naturalWidth));
  if (factor > 1) image.classList.add("small");
  element.style.width = `${image.naturalWidth * factor}px`;
}

export function comparison(before, after) {
  const [old, made] = [make("img", { src: before, alt: "before" }), make("img", { src: after, alt: "after", className: "after" })];
  const tags = ["before", "after"].map((each) => make("span", { ariaHidden: "true" }, each)); // it is their alt
  const both = make("div", { className: "compare" }, old, made, ...tags);
  const split = make("input", { type: "range", className: "split", min: "0", max: "100", value: "50", "aria-label": "How much of the image is shown as it was, percent" });
  split.oninput = () => {
    made.style.clipPath = `inset(0 0 0 ${split.value}%)`;
    both.style.setProperty("--split", `${split.value}%`);
  };
  const sized = make("div", { className: "sized" }, both, split);
  made.onload = () => enlarge(made, sized);
  const drag = (event) => {
    if (event.type !== "pointerdown" && !event.buttons) return;
    const box = both.getBoundingClientRect();
    split.value = String(((event.clientX - box.left) / box.width) * 100);
    split.oninput();
    event.preventDefault();
  };
  both.onpointerdown = both.onpointermove = drag;
  split.oninput();
  return make("div", {}, sized);
}

export function table(values) {
  const rows = (Array.isArray(values) ? values : [values]).flatMap((each) => (Array.isArray(each) ? each : [each]));
  const names = [...new Set(rows.flatMap((each) => (each && typeof each === "object" ? Object.keys(each) : ["value"])))];
  const cell = (value) => typeof value === "number" ? String(Math.round(value * 1000) / 1000) : Array.isArray(value) ? value.map(cell).join(", ") : typeof value === "object" ? JSON.stringify(value) : String(value);
  return make("table", {},
    make("thead", {}, make("tr", {}, ...names.map((each) => make("th", { scope: "col" }, each)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...names.map((each) => make("td", {}, cell(row && typeof row === "object" ? row[each] ?? "" : row)))))));
}

/** An animation that can be stopped and looked through, where the browser decodes frames. */
export async function player(blob, src) {
  const still = picture(src, "animation");
  if (!("ImageDecoder" in window)) return still;
  const frames = [];
  try {
    const decoder = new ImageDecoder({ data: await blob.arrayBuffer(), type: blob.type });
    await decoder.tracks.ready;
    const count = decoder.tracks.selectedTrack.frameCount;
    for (let i = 0; i < count; i++) frames.push((await decoder.decode({ frameIndex: i })).image);
  } catch {
    return still;
  }
  if (frames.length < 2) return still;
  const canvas = make("canvas", { width: frames[0].displayWidth, height: frames[0].displayHeight, role: "img", "aria-label": "animation" });
  const place = make("input", { type: "range", className: "split", min: "0", max: String(frames.length - 1), value: "0", "aria-label": "frame" });
  const draw = () => canvas.getContext("2d").drawImage(frames[Number(place.value)], 0, 0);
  const toggle = pressable("Pause", () => play(!timer));
  let timer = null;
  function next() {
    if (!canvas.isConnected) return play(false);
    place.value = String((Number(place.value) + 1) % frames.length);
    draw();
    timer = setTimeout(next, (frames[Number(place.value)].duration ?? 100_000) / 1000);
  }
  function play(on) {
    clearTimeout(timer);
    timer = on ? setTimeout(next, 100) : null;
    toggle.textContent = on ? "Pause" : "Play";
  }
  place.oninput = () => { play(false); draw(); };
  draw();
  setTimeout(() => play(!matchMedia("(prefers-reduced-motion: reduce)").matches));
  const sized = make("div", { className: "sized" }, canvas, place);
  enlarge({ naturalWidth: canvas.width, classList: canvas.classList }, sized);
  return make("div", {}, sized, make("div", { className: "row" }, toggle));
}
