// The page of a genimg server. What it offers is what v1/operations and v1/models say, so that a
// new operation appears by itself. It asks no other host, and keeps nothing beyond the tab.

import { $, KEY, download, make, pressable, saved, urlOf } from "./elements.js";
import { LINES } from "./lines.js";
import { Painter } from "./painter.js";
import { comparison, picture, player, table } from "./pictures.js";

const FILES = { picture: "image/*", frames: "image/*", mask: "image/*", latents: ".npy" };
const POLL_MS = 2000; // between two looks at models that are being loaded
const JOB_MS = 1000; // between two looks at a job
const SEEDS = 100_000; // of which one is drawn where none is given: short enough to be told
const FEW = 40; // classes or words of a model that are named beside their field
const FIRST = ["text", "label"]; // options that stand before the others
const RARE = ["ensemble", "tile", "truncation", "guidance", "steps", "direction", "square", "reach", "alone", "starts", "iterations"];

const page = {
  operations: [],
  models: [],
  operation: null,
  files: {}, // by parameter: {blob, name, url}
  typed: {}, // by option: what was typed, kept from one operation to the next
  seed: null, // the seed that is kept; null: another one each time
  painter: null,
  running: null, // AbortController
  shown: null, // the answer in view
  past: [],
  as: "curl",
  more: false, // whether the rarer options are in view
};

/** What is offered, in the groups that it is looked for in. */
const GROUPS = {
  "Change a photo": (each) => each.gives === "picture",
  Draw: (each) => ["pictures", "frames", "grid"].includes(each.gives),
  "Look into": (each) => ["values", "latents"].includes(each.gives),
};

// The key, where this server asks for one

/** An answer of this server; where it is that a key is wanted, one is asked for. */
async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key && { authorization: `Bearer ${key}` }) };
  const answer = await fetch(urlOf(path), { ...options, headers });
  if (answer.status === 401) {
    $("key-told").textContent = key ? (await answer.clone().json()).error.message : "This server asks for a key.";
    $("loading").textContent = "";
    $("key-form").hidden = false;
    $("key").focus();
  }
  return answer;
}

$("key-form").onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, $("key").value.trim());
  $("key").value = "";
  $("key-form").hidden = true;
  complain("");
  look();
};

// What this server can do

async function look() {
  const answers = await Promise.all(["v1/operations", "v1/models"].map((path) => call(path)));
  if (answers.some((each) => each.status === 401)) return;
  const [operations, models] = await Promise.all(answers.map(async (each) => (await each.json()).data));
  Object.assign(page, { operations, models });
  const able = operations.filter((each) => modelsFor(each).length);
  const entry = (each) => make("li", {}, pressable(each.name, () => choose(each), { id: `do-${each.name}`, title: each.description }));
  const groups = Object.entries(GROUPS).map(([name, fits]) => [name, able.filter(fits)]).filter(([, fitting]) => fitting.length);
  $("operations").replaceChildren(...groups.flatMap(([name, fitting]) => [make("h2", {}, name), make("ul", { "aria-label": name }, ...fitting.map(entry))]));
  const waiting = models.filter((each) => each.state === "loading").map((each) => each.id);
  $("loading").textContent = waiting.length ? `Loading ${waiting.join(", ")}…` : "";
  if (waiting.length) setTimeout(look, POLL_MS);
  const kept = able.find((each) => each.name === page.operation?.name);
  if (kept) mark();
  else if (groups.length) choose(groups[0][1][0]);
  else if (!waiting.length) $("loading").textContent = "No model is served.";
  const photos = forPhotos();
  $("empty").textContent = photos ? `Drop a photo anywhere here, or paste one, to ${photos.name} it. Or choose what to do, and Go.` : "";
  $("empty").hidden = !photos || !$("answer").hidden || Object.keys(page.files).length > 0;
}

/** What takes an image: `restore`, which does to most photos what they need, or the first of all. */
function forPhotos() {
  const able = page.operations.filter((each) => imageOf(each) && modelsFor(each).some((model) => isRead(each, imageOf(each), model)));
  return able.find((each) => each.name === "restore") ?? able[0];
}

const imageOf = (operation) =>
  Object.keys(operation.takes).find((key) => ["picture", "frames"].includes(operation.takes[key]));

/** Whether a model reads what an operation takes. */
const isRead = (operation, key, model) => !operation.reads[key] || model.capabilities.includes(operation.reads[key]);

const modelsFor = (operation) =>
  page.models.filter((each) => ["ready", "asleep"].includes(each.state) && each.capabilities.includes(operation.name));

function mark() {
  for (const each of $("operations").querySelectorAll("button"))
    each.setAttribute("aria-current", String(each.id === `do-${page.operation.name}`));
}

// The form of an operation

function choose(operation) {
  page.operation = operation;
  mark();
  $("asking").hidden = false;
  $("title").textContent = operation.name;
  $("about").textContent = operation.description;
  $("problem").textContent = "";
  if (!page.running) $("progress").textContent = "";
  form();
}

/** The model in the form. */
function modelInUse() {
  const models = modelsFor(page.operation);
  return models.find((each) => each.id === page.typed.model) ?? models[0];
}

function form() {
  const operation = page.operation;
  const [models, model] = [modelsFor(operation), modelInUse()];
  page.painter = null;
  const files = [];
  const options = [];
  const rare = []; // of both
  const isUnread = (key) => !isRead(operation, key, model);
  const instead = Object.keys(operation.takes).some(isUnread); // of which latents may be given
  for (const [key, kind] of Object.entries(operation.takes)) {
    const place = kind === "latents" && operation.optional.includes(key) && !instead ? rare : files;
    place.push(isUnread(key) ? unread(key, model) : dropZone(key, kind));
  }
  for (const [name, schema] of inOrder(operation.options.properties ?? {})) {
    const honoured = model.honours?.[operation.name] ?? [];
    if (operation.conditions.includes(name) && !honoured.includes(name)) continue;
    if (name === "to_label" && !model.classes.length) continue;
    (RARE.includes(name) ? rare : options).push(optionField(name, schema, operation, model));
  }
  $("files").replaceChildren(...files);
  $("options").replaceChildren(modelField(models, model), ...options, ...(rare.length ? [more(rare)] : []));
  $("badge").textContent = `${model.id}, version ${model.version}`;
}

/** Options as they are shown. What is an operation's own comes last in its schema, and first here. */
function inOrder(properties) {
  const own = Object.entries(properties).reverse();
  const first = own.filter(([name]) => FIRST.includes(name));
  return [...first, ...own.filter((each) => !first.includes(each))];
}

/** What few ask for, out of sight until somebody does. */
function more(fields) {
  const details = make("details", { id: "more", open: page.more }, make("summary", {}, "More options"), ...fields);
  details.ontoggle = () => { page.more = details.open; };
  return details;
}

function modelField(models, model) {
  const select = make("select", { id: "option-model", onchange: () => { page.typed.model = select.value; form(); } });
  select.append(...models.map((each) => make("option", { value: each.id, selected: each === model }, each.id)));
  const broken = model.rejected && `version ${model.rejected.version} is refused: ${model.rejected.reason}`;
  const drawn = GROUPS.Draw(page.operation) && model.size ? `Its images are of ${model.size} x ${model.size} pixels.` : "";
  return field("model", select, broken || [model.about, drawn].filter(Boolean).join(" "));
}

function field(name, input, hint, ...beside) {
  const described = `hint-${name}`;
  input.setAttribute("aria-describedby", described);
  return make("div", { className: "field" },
    make("label", { htmlFor: input.id }, name.replaceAll("_", " ")),
    make("div", { className: "row" }, input, ...beside),
    make("span", { className: "hint", id: described }, hint));
}

/** {kind, words, least, most} of an option's JSON Schema. */
function kindOf(schema, limit) {
  const parts = (schema.anyOf ?? [schema]).filter((each) => each.type !== "null");
  const words = parts.flatMap((each) => each.enum ?? (each.const === undefined ? [] : [each.const]));
  const number = parts.find((each) => each.type === "integer" || each.type === "number");
  const text = parts.some((each) => each.type === "string" && !each.enum && each.const === undefined);
  if (parts.every((each) => each.type === "boolean")) return { kind: "boolean" };
  if (words.length && !number && !text) return { kind: "choice", words };
  if (!number || text || words.length) return { kind: "text", words, numeric: Boolean(number) && !text };
  const most = Math.min(number.maximum ?? Infinity, limit ?? Infinity);
  return { kind: number.type, least: number.minimum ?? number.exclusiveMinimum, most };
}

/** What an option means: of this model, so that "for models that ..." goes without saying. */
function meaning(name, schema, model) {
  const told = (schema.description ?? "").replace(/, for models that [^;]*/, "");
  const known = { text: model.words, label: model.classes }[name] ?? [];
  return known.length && known.length <= FEW ? `${told}; known: ${known.join(", ")}` : told;
}

function optionField(name, schema, operation, model) {
  const id = `option-${name}`;
  const hint = meaning(name, schema, model);
  const known = kindOf(schema, operation.limits[name]);
  const typed = page.typed[name];
  const keep = (input, value) => () => { page.typed[name] = value(); input.removeAttribute("aria-invalid"); };
  const unset = schema.default === null || schema.default === undefined ? "" : String(schema.default);
  let input;
  if (known.kind === "boolean") {
    input = make("input", { type: "checkbox", id, checked: typed ?? schema.default === true });
    input.onchange = keep(input, () => input.checked);
    return field(name, input, hint);
  }
  if (known.kind === "choice") {
    input = make("select", { id });
    input.append(...known.words.map((each) => make("option", { selected: String(each) === String(typed ?? unset) }, String(each))));
    input.onchange = keep(input, () => input.value);
    return field(name, input, hint);
  }
  const shown = name === "seed" ? (page.seed ?? "") : (typed ?? "");
  const numeric = known.kind === "integer" || known.kind === "number";
  input = make("input", { id, type: numeric ? "number" : "text", value: shown, placeholder: name === "seed" ? "random" : unset });
  if (numeric) {
    input.step = known.kind === "integer" ? "1" : "any";
    if (known.least !== undefined) input.min = String(known.least);
    if (Number.isFinite(known.most)) input.max = String(known.most);
  }
  input.oninput = keep(input, () => input.value.trim());
  const beside = [];
  if (name === "seed") {
    const lock = pressable("Keep", () => keepSeed(page.seed === null ? (page.shown?.asked.options.seed ?? 0) : null), {
      id: "seed-lock", "aria-pressed": String(page.seed !== null), "aria-label": "Keep the seed",
    });
    input.oninput = () => keepSeed(input.value === "" ? null : Number(input.value), false);
    beside.push(lock);
  }
  const offered = name === "label" || name === "to_label" ? model.classes : known.words ?? [];
  if (offered.length) {
    const list = make("datalist", { id: `${id}-known` });
    list.append(...offered.map((each) => make("option", { value: String(each) })));
    input.setAttribute("list", list.id);
    beside.push(list);
  }
  return field(name, input, hint, ...beside);
}

function keepSeed(seed, write = true) {
  page.seed = seed;
  const input = $("option-seed");
  if (input && write) input.value = seed ?? "";
  $("seed-lock")?.setAttribute("aria-pressed", String(seed !== null));
}

/** What was typed, as JSON has it: what differs from an option's default, and nothing else. */
function optionsTyped() {
  const options = {};
  for (const [name, schema] of Object.entries(page.operation.options.properties ?? {})) {
    if (!$(`option-${name}`)) continue;
    const random = page.operation.gives === "pictures" ? Math.floor(Math.random() * SEEDS) : null;
    const value = name === "seed" ? (page.seed ?? random) : page.typed[name];
    if (value === undefined || value === null || value === "") continue;
    const known = kindOf(schema, Infinity);
    const number = known.kind === "integer" || known.kind === "number" || (known.numeric && /^-?[\d.]+$/.test(value));
    const told = number ? Number(value) : value;
    if (told !== schema.default) options[name] = told;
  }
  return options;
}

// Images that are given

function dropZone(key, kind) {
  const optional = page.operation.optional.includes(key);
  const id = `file-${key}`;
  const zone = make("div", { className: "drop", "data-key": key });
  const input = make("input", { type: "file", id, accept: FILES[kind] });
  input.onchange = () => input.files[0] && give(key, input.files[0]);
  zone.ondragover = (event) => { event.preventDefault(); zone.classList.add("over"); };
  zone.ondragleave = () => zone.classList.remove("over");
  zone.append(make("label", { htmlFor: id }, kind === "mask" ? `${key}: paint on the image, or choose a file` : `${key}: drop, paste or choose one${optional ? " (may be left out)" : ""}`), input);
  const given = page.files[key];
  if (given) input.files = listOf(given); // or a new form's field says that no file is chosen
  if (given && kind !== "mask") zone.append(preview(key, given));
  if (given) zone.append(pressable(`Remove ${key}`, () => { delete page.files[key]; form(); }));
  return zone;
}

const unread = (key, model) => make("p", { className: "hint" }, `${key}: ${model.id} reads none; ${page.operation.instead[key]}`);

/** A file as a field has it, by its name. */
function listOf({ blob, name }) {
  const list = new DataTransfer();
  list.items.add(new File([blob], name, { type: blob.type }));
  return list.files;
}

function preview(key, given) {
  const image = make("img", { src: given.url, alt: `${key}: ${given.name}` });
  if (!given.blob.type.startsWith("image/")) return make("span", {}, given.name);
  if (!("mask" in page.operation.takes)) return image;
  given.painter ??= new Painter(image); // what was painted stays when the form is made anew
  page.painter = given.painter;
  return page.painter.element;
}

function give(key, blob, name = blob.name ?? "image.png") {
  if (page.files[key]) URL.revokeObjectURL(page.files[key].url);
  page.files[key] = { blob, name, url: URL.createObjectURL(blob) };
  $("empty").hidden = true;
  form();
}

/** A file that was dropped or pasted: for the operation in view, or the one for photos. */
function giveAny(blob) {
  const key = imageOf(page.operation);
  if (!key || !isRead(page.operation, key, modelInUse())) {
    const other = forPhotos();
    if (!other) return;
    choose(other);
  }
  give(imageOf(page.operation), blob, blob.name || "pasted.png");
}

// Asking

class Refused extends Error {
  constructor(message, param) {
    super(message);
    this.param = param;
  }
}

/** The answer to what is asked for; Refused with what the server says. */
async function send({ operation, model, options, files }, signal, more = {}) {
  const values = { ...options, model, ...more };
  const given = Object.entries(files);
  const body = given.length ? new FormData() : JSON.stringify(values);
  if (given.length) {
    for (const [key, value] of Object.entries(values)) body.append(key, String(value));
    for (const [key, file] of given) body.append(key, file.blob, file.name);
  }
  const headers = given.length ? {} : { "content-type": "application/json" };
  const answer = await call(operation.path, { method: "POST", body, headers, signal });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  throw new Refused(told?.error?.message ?? `${answer.status} ${answer.statusText}`, told?.error?.param);
}

const formOf = ({ operation }) => operation.gives === "pictures" ? { response_format: "b64_json" } : {};

/** Do what the form says: now, or as a job. */
async function go(work = ask) {
  if (page.running) return;
  const operation = page.operation;
  const files = {};
  const given = Object.keys(operation.takes).filter((key) => page.files[key] && isRead(operation, key, modelInUse()));
  for (const key of given) files[key] = page.files[key];
  const missing = Object.keys(operation.takes).find((key) => !files[key] && operation.takes[key] !== "mask" && !operation.optional.includes(key));
  complain("");
  if (missing) return complain(`${missing}: give one: drop it here, paste it, or choose a file`);
  const asked = { operation, model: $("option-model").value, options: optionsTyped(), files };
  const painter = "mask" in operation.takes ? page.painter : null;
  const model = modelInUse();
  await during(async (signal) => {
    const painted = await painter?.mask();
    if (painted) files.mask = { blob: painted, name: "mask.png" };
    const said = await work(asked, signal);
    if (work === ask) model.state = "ready";
    return said;
  }, model.state === "asleep" ? `loading ${model.id}, working` : "working");
}

function complain(message, param) {
  $("problem").textContent = message;
  for (const each of document.querySelectorAll("[aria-invalid]")) each.removeAttribute("aria-invalid");
  const blamed = $(`option-${param}`) ?? $(`file-${param}`);
  blamed?.setAttribute("aria-invalid", "true");
  if (blamed?.closest("details")) blamed.closest("details").open = true;
}

/** Do something that takes long: shown with its seconds, cancelled by the button or Esc. */
async function during(work, what = "working") {
  page.running = new AbortController();
  const began = performance.now();
  const tick = setInterval(() => { $("progress").textContent = `${what}, ${((performance.now() - began) / 1000).toFixed(0)} s`; }, 500);
  $("go").disabled = $("later").disabled = true;
  $("cancel").hidden = false;
  $("progress").textContent = what;
  try {
    const said = await work(page.running.signal);
    $("progress").textContent = said ?? `done in ${((performance.now() - began) / 1000).toFixed(1)} s`;
  } catch (error) {
    $("progress").textContent = error.name === "AbortError" ? "cancelled" : "";
    if (error.name !== "AbortError") complain(error instanceof Refused ? error.message : `The server does not answer: ${error.message}`, error.param);
  } finally {
    clearInterval(tick);
    page.running = null;
    $("go").disabled = $("later").disabled = false;
    $("cancel").hidden = true;
  }
}

async function ask(asked, signal) {
  const drawn = async () => (await send(asked, signal, { response_format: "image" })).blob();
  await show(await read(asked, await send(asked, signal, formOf(asked)), drawn));
}

/** What is known of an answer, kept in the history; drawn: gets a picture of what only tells. */
async function read(asked, answer, drawn) {
  const { gives, shows } = asked.operation;
  const told = { asked, model: answer.headers.get("X-Model-Id"), version: answer.headers.get("X-Model-Version"), timing: answer.headers.get("Server-Timing"), psnr: answer.headers.get("X-PSNR") };
  const seed = answer.headers.get("X-Seed");
  if (seed !== null && "seed" in asked.operation.options.properties) asked.options.seed = Number(seed);
  if (gives === "pictures") {
    const content = await answer.json();
    const blobs = content.data.map((each) => blobOf(each.b64_json, `image/${content.output_format}`));
    told.images = content.data.map((each, i) => ({ blob: blobs[i], url: URL.createObjectURL(blobs[i]), seed: each.seed, label: each.label }));
    told.thumbnail = told.images[0]?.url;
    told.notes = content.notes;
  } else if (gives === "values" || gives === "latents") {
    told.values = (await answer.json()).data;
    if (shows) told.blob = await drawn?.();
  } else told.blob = await answer.blob();
  if (told.blob) told.url = URL.createObjectURL(told.blob);
  told.thumbnail ??= told.url ?? asked.files.image?.url;
  page.past.unshift(told);
  past();
  return told;
}

function blobOf(base64, type) {
  return new Blob([Uint8Array.from(atob(base64), (each) => each.charCodeAt(0))], { type });
}

// Jobs: what goes on in the background, also where this server stops in between

async function begin(asked, signal) {
  const job = await (await send(asked, signal, { ...formOf(asked), async: true })).json();
  const { name } = asked.operation;
  const entry = {
    asked, job,
    text: make("span"),
    bar: make("progress", { max: 1, value: 0, "aria-label": `how much of ${name} is done` }),
    cancel: pressable("Cancel", () => stop(entry), { "aria-label": `Cancel ${name}` }),
    show: pressable("Show", () => show(entry.told), { hidden: true, "aria-label": `Show ${name}` }),
  };
  entry.element = make("li", { tabIndex: -1 }, entry.text, entry.bar, entry.cancel, entry.show);
  $("jobs").prepend(entry.element);
  $("background").hidden = false;
  follow(entry);
  return "goes on in the background, below";
}

async function stop(entry) {
  const answer = await call(`v1/jobs/${entry.job.id}/cancel`, { method: "POST" }).catch(() => null);
  if (answer?.ok) tell(entry, await answer.json());
}

async function follow(entry) {
  tell(entry, entry.job);
  while (!entry.job.ended) {
    await new Promise((done) => setTimeout(done, JOB_MS));
    const answer = await patiently(`v1/jobs/${entry.job.id}`);
    if (!entry.job.ended) tell(entry, answer.ok ? await answer.json() : { ...entry.job, state: "deleted", ended: true });
  }
  if (entry.job.state !== "done") return;
  entry.told = await read(entry.asked, await patiently(entry.job.result));
  entry.show.hidden = false;
  if (document.activeElement === entry.element) entry.show.focus();
}

/** The server's answer, waited for where it is starting again: jobs outlive it. */
async function patiently(path) {
  for (;;) {
    const answer = await call(path).catch(() => null);
    if (answer && answer.status < 500) return answer;
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
}

function tell(entry, job) {
  const { name } = entry.asked.operation;
  const before = entry.job.state;
  entry.job = job;
  const more = { queued: `${job.position ?? 1}. in the queue`, running: `${Math.round(100 * job.progress)} %`, failed: job.error?.message };
  entry.text.textContent = `${name}: ${[job.state, more[job.state]].filter(Boolean).join(", ")}`;
  entry.bar.value = job.progress;
  if (job.state !== before) $("jobs-said").textContent = `${name}: ${job.state}`;
  if (!job.ended) return;
  if (document.activeElement === entry.cancel) entry.element.focus(); // or the place in the page is lost
  entry.cancel.hidden = entry.bar.hidden = true;
}

// What came of it

const SHOWN = {
  picture: (told) => told.asked.files.image ? comparison(told.asked.files.image.url, told.url) : picture(told.url, told.asked.operation.name),
  pictures: gallery,
  frames: (told) => player(told.blob, told.url),
  grid: (told) => picture(told.url, told.asked.operation.name),
  values: (told) => make("div", {}, ...(told.url ? [picture(told.url, "what was found, drawn on the image")] : []), table(told.values)),
  latents: (told) => make("p", {}, `${told.values.length} x ${told.values[0].length} latents`),
};

async function show(told) {
  page.shown = told;
  $("answer").hidden = false;
  $("empty").hidden = true;
  const { operation } = told.asked;
  $("result").replaceChildren(await SHOWN[operation.gives](told));
  const seed = told.asked.options.seed;
  $("facts").textContent = [`${told.model}, version ${told.version}`, seed !== undefined && `seed ${seed}`, told.psnr && `${told.psnr} dB`, told.timing && `${told.timing.replaceAll(";dur=", " ")} ms`, ...(told.notes ?? [])]
    .filter(Boolean).join("; ");
  $("badge").textContent = `${told.model}, version ${told.version}`;
  const actions = [];
  if (told.url) {
    actions.push(saved(told.url, nameOf(told), "Download"));
    if (operation.gives === "picture") actions.push(pressable("Go on with this image", () => give("image", told.blob, nameOf(told))));
  }
  if (told.asked.files.mask) actions.push(saved(URL.createObjectURL(told.asked.files.mask.blob), "mask.png", "Download the mask"));
  if (operation.gives === "latents") actions.push(pressable("Download .npy", () => during(async (signal) => {
    download(await (await send(told.asked, signal, { response_format: "npy" })).blob(), "latents.npy");
  })));
  $("actions").replaceChildren(...actions);
  line();
  await Promise.allSettled([...$("result").querySelectorAll("img")].map((each) => each.decode()));
  const { top } = $("answer").getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) $("answer").scrollIntoView(); // as on a phone, below the form
}

const EXTENSIONS = { "image/jpeg": "jpg", "image/tiff": "tif", "application/x-npy": "npy" };

function nameOf(told) {
  const { gives, name } = told.asked.operation;
  if (gives === "latents" || gives === "values") return `${name}.json`;
  const type = told.blob?.type ?? "image/png";
  return `${name}.${EXTENSIONS[type] ?? type.split("/")[1]}`;
}

function gallery(told) {
  const grid = make("div", { className: "grid" });
  const tools = make("div", { className: "row", role: "group", "aria-label": "Of the images that are chosen" });
  const chosen = new Set();
  const choosing = (each, button) => () => {
    if (!chosen.delete(each)) chosen.add(each);
    button.setAttribute("aria-pressed", String(chosen.has(each)));
    refresh();
  };
  const other = (name) => page.operations.find((each) => each.name === name && modelsFor(each).some((model) => model.id === told.model));
  const from = (operation, options) => {
    const carried = Object.fromEntries(["label", "steps", "guidance"].filter((key) => key in told.asked.options).map((key) => [key, told.asked.options[key]]));
    return () => during((signal) => ask({ operation, model: told.model, files: {}, options: { ...carried, ...options } }, signal));
  };
  function refresh() {
    const picked = [...chosen];
    const seeds = picked.map((each) => each.seed);
    const made = [];
    if (picked.length === 1) {
      made.push(saved(picked[0].url, `${told.asked.operation.name}-${seeds[0] ?? 0}.png`, "Download this one"));
      if (seeds[0] !== undefined) made.push(pressable("Keep its seed", () => keepSeed(seeds[0])));
      if (other("vary") && seeds[0] !== undefined && told.asked.operation.name === "sample") made.push(pressable("Vary it", from(other("vary"), { of: seeds[0], n: 8 })));
    }
    if (picked.length > 1 && other("interpolate") && told.asked.operation.name === "sample")
      made.push(pressable(`Go through these ${picked.length}`, from(other("interpolate"), { seeds: seeds.join(","), frames: 8 * picked.length })));
    made.push(pressable("Download the grid", () => during(async (signal) => download(await (await send(told.asked, signal)).blob(), nameOf(told)))));
    tools.replaceChildren(...made);
  }
  told.images.forEach((each, i) => {
    const name = [each.seed !== undefined && `seed ${each.seed}`, each.label].filter(Boolean).join(", ") || `image ${i + 1}`;
    const image = make("img", { src: each.url, alt: "", className: "small" });
    const button = make("button", { type: "button", "aria-pressed": "false", "aria-label": name }, image, name);
    button.onclick = choosing(each, button);
    grid.append(button);
  });
  refresh();
  return make("div", {}, grid, tools);
}

// History, and the command that does it again

function past() {
  $("past").hidden = false;
  $("history").replaceChildren(...page.past.map((told) => {
    const { operation, options } = told.asked;
    const text = [operation.name, ...Object.entries(options).map(([key, value]) => `${key} ${value}`)].join(", ");
    const image = told.thumbnail ? [make("img", { src: told.thumbnail, alt: "" })] : [];
    return make("li", {}, make("button", { type: "button", "aria-label": text, title: text, onclick: () => back(told) }, ...image, operation.name));
  }));
}

/** An answer in view again, with the form as it was. */
function back(told) {
  const { operation, options, files, model } = told.asked;
  for (const name of Object.keys(operation.options.properties)) page.typed[name] = options[name];
  page.typed.model = model;
  page.seed = options.seed ?? null;
  for (const [key, file] of Object.entries(files)) if (key !== "mask") page.files[key] = { ...file, url: URL.createObjectURL(file.blob) };
  choose(operation);
  show(told);
}

function line() {
  for (const each of document.querySelectorAll("[data-as]")) each.setAttribute("aria-pressed", String(each.dataset.as === page.as));
  $("line").textContent = LINES[page.as](page.shown.asked, nameOf(page.shown));
}

// Keys, drops and pastes

function keys(event) {
  const typing = event.target.matches("input:not([type=range], [type=checkbox]), select, textarea");
  const command = event.ctrlKey || event.metaKey; // Cmd, of a Mac
  if (event.key === "Escape" && page.running) page.running.abort();
  else if (command && event.key === "Enter") go();
  else if (command && event.key === "z" && !typing && page.painter) page.painter.undo();
  else if (typing || command || event.altKey) return;
  else if (event.key === "[") page.painter?.resize(1 / 1.25);
  else if (event.key === "]") page.painter?.resize(1.25);
  else if (event.key === "h") $("help").showModal();
  else if (event.key === "o") bare(true);
  else return;
  event.preventDefault();
}

function bare(on) {
  for (const each of document.querySelectorAll(".canvas, .compare")) each.classList.toggle("bare", on);
}

$("form").onsubmit = (event) => { event.preventDefault(); go(); };
$("later").onclick = () => go(begin);
$("cancel").onclick = () => page.running?.abort();
$("help-button").onclick = () => $("help").showModal();
$("copy").onclick = async () => {
  if (navigator.clipboard) await navigator.clipboard.writeText($("line").textContent);
  else { // over plain HTTP from another machine
    getSelection().selectAllChildren($("line"));
    document.execCommand("copy");
  }
  $("copy").textContent = "Copied";
  setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
};
for (const each of document.querySelectorAll("[data-as]")) each.onclick = () => { page.as = each.dataset.as; line(); };
document.addEventListener("keydown", keys);
document.addEventListener("keyup", (event) => { if (event.key === "o") bare(false); });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  for (const each of document.querySelectorAll(".over")) each.classList.remove("over");
  const file = event.dataTransfer.files[0];
  const key = event.target.closest?.(".drop")?.dataset.key;
  if (file && key) give(key, file);
  else if (file) giveAny(file);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
  if (file) giveAny(file);
});

look().catch((error) => { $("loading").textContent = `The server does not answer: ${error.message}`; });
