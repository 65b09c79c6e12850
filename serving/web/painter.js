import { make, pressable } from "./elements.js";

/** A mask that is painted on an image, at the image's own resolution. */
export class Painter {
  constructor(image) {
    this.strokes = []; // {size, points}
    this.size = 0;
    this.at = [0, 0]; // of the brush, for the keyboard
    this.canvas = make("canvas", { tabIndex: 0, "aria-label": "Paint what is to be filled: with a pointer, or with arrows and Space" });
    this.canvas.setAttribute("role", "application");
    const tell = () => `brush of ${this.size} pixels`;
    this.told = make("output", { role: "status" });
    const resize = (factor) => { this.size = Math.max(1, Math.round(this.size * factor)); this.told.textContent = tell(); };
    const tools = make("div", { className: "row", role: "group", "aria-label": "Brush" },
      pressable("Smaller", () => resize(1 / 1.25)), pressable("Larger", () => resize(1.25)),
      pressable("Undo", () => this.undo()), pressable("Clear", () => { this.strokes = []; this.draw(); }), this.told);
    this.resize = resize;
    this.element = make("div", {}, make("div", { className: "canvas" }, image, this.canvas), tools);
    image.onload = () => {
      [this.canvas.width, this.canvas.height] = [image.naturalWidth, image.naturalHeight];
      this.canvas.parentElement.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
      this.at = [image.naturalWidth >> 1, image.naturalHeight >> 1];
      this.size = Math.max(2, Math.round(Math.max(...this.at) / 10));
      resize(1);
      this.draw();
    };
    this.canvas.onpointerdown = (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.strokes.push({ size: this.size, points: [this.place(event)] });
      this.draw();
    };
    this.canvas.onpointermove = (event) => {
      if (!this.canvas.hasPointerCapture(event.pointerId)) return;
      this.strokes.at(-1).points.push(this.place(event));
      this.draw();
    };
    this.canvas.onkeydown = (event) => this.key(event);
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.canvas.width, ((event.clientY - box.top) / box.height) * this.canvas.height];
  }

  key(event) {
    const step = Math.max(1, this.size / 2);
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key === " ") this.strokes.push({ size: this.size, points: [[...this.at]] });
    else if (moves[event.key])
      this.at = this.at.map((value, i) => Math.min(Math.max(value + moves[event.key][i], 0), [this.canvas.width, this.canvas.height][i]));
    else return;
    event.preventDefault();
    this.draw(true);
  }

  undo() {
    this.strokes.pop();
    this.draw();
  }

  draw(cursor = false) {
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.paint(context, "#ff00c8"); // which few photos have
    if (!cursor) return;
    context.strokeStyle = "#1c7ed6";
    context.lineWidth = Math.max(1, this.size / 8);
    context.beginPath();
    context.arc(...this.at, this.size / 2, 0, 2 * Math.PI);
    context.stroke();
  }

  paint(context, colour) {
    Object.assign(context, { strokeStyle: colour, fillStyle: colour, lineCap: "round", lineJoin: "round" });
    for (const { size, points } of this.strokes) {
      context.lineWidth = size;
      context.beginPath();
      context.moveTo(...points[0]);
      context.lineTo(points[0][0] + 0.01, points[0][1]); // a line of no length is not drawn
      for (const point of points.slice(1)) context.lineTo(...point);
      context.stroke();
    }
  }

  /** The mask as a PNG, white where it was painted; null where nothing was. */
  async mask() {
    if (!this.strokes.length) return null;
    const canvas = make("canvas", { width: this.canvas.width, height: this.canvas.height });
    const context = canvas.getContext("2d");
    context.fillRect(0, 0, canvas.width, canvas.height);
    this.paint(context, "#ffffff");
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  }
}
