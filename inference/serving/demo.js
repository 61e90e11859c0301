"use strict";
const find = (selector) => document.querySelector(selector);
const [paper, pen, seen, dropped, hint] = [".paper", ".pen", ".seen", ".dropped", ".hint"].map(find);
const [fault, status] = ["[role=alert]", "[role=status]"].map(find);
const [video, camera] = [".video", ".camera"].map(find);
const { limit, side } = document.body.dataset;
const brush = paper && Object.assign(paper.getContext("2d", { willReadFrequently: true }), {
  lineWidth: paper.width / 14, lineCap: "round", lineJoin: "round", strokeStyle: "#000",
});
const copy = new OffscreenCanvas(side, side).getContext("2d", { willReadFrequently: true });

// Questions ---------------------------------------------------------------------------------------

let asked = 0; // number of questions
let shown = 0; // number of the latest question whose answer is shown, or no longer wanted
let asking = 0; // questions not yet answered
let later = false; // whether ink was added since the latest question
let showsImage = false; // whether an image is shown and not a drawing
let chosen = null; // the file whose image is shown
let stream = null; // of the camera, while it is on

// Answers come from the demo's server; on a page without one `local`, of static.js, gives them.
const answerTo = globalThis.local ?? (async (path, body) => (await fetch(path, { method: "POST", body })).json());

// Asks for an answer and shows it, unless a later question has been answered already.
// `since` is the time at which a stroke ended, or null while it is drawn.
async function ask(path, body, since) {
  const number = ++asked;
  asking++;
  try {
    const answer = await answerTo(path, body);
    if (number > shown) {
      shown = number;
      answer.error ? complain(answer.error) : show(answer, since);
    }
  } catch {
    complain("The demo does not answer. If it has ended, start it again and reload this page.");
  }
  asking--;
  if (later && !asking) askDrawing();
}

// The ink on the paper: the alpha channel, a byte for each pixel of a smaller copy.
function ink() {
  copy.clearRect(0, 0, side, side);
  copy.drawImage(paper, 0, 0, side, side);
  const { data } = copy.getImageData(0, 0, side, side);
  const bytes = new Uint8Array(side * side);
  for (let i = 0; i < bytes.length; i++) bytes[i] = data[4 * i + 3];
  return bytes;
}

// While a stroke is drawn, one question is asked at a time; at its end one is asked at once.
function askDrawing(since = null) {
  later = asking > 0 && since === null;
  if (!later) ask("/drawing", ink(), since);
}

function askImage(files) {
  const [file] = files;
  if (!file) return;
  const since = performance.now();
  clear();
  showsImage = true;
  chosen = file;
  if (file.size > limit) {
    complain(`${file.name} has ${(file.size / 2 ** 20).toFixed(1)} MiB; at most ${limit / 2 ** 20} are taken.`);
    return;
  }
  if (files.length > 1) complain(`Of ${files.length} files only ${file.name} was taken.`);
  dropped.onload = () => {
    dropped.hidden = false;
    hint.hidden = true;
  };
  dropped.src = URL.createObjectURL(file);
  ask(`/image?name=${encodeURIComponent(file.name)}`, file, since);
}

// Answers -----------------------------------------------------------------------------------------

const percent = (share) => `${(Math.floor(1000 * share) / 10).toFixed(1)} %`; // never a false 100

function show({ pixels, prepared, classes, answers }, since) {
  showPixels(typeof pixels === "string" ? Uint8Array.from(atob(pixels), (letter) => letter.charCodeAt(0)) : pixels);
  if (!showsImage || stream) complain("");
  const [first] = answers;
  const dissent = answers.find((answer) => answer.best !== first.best);
  let verdict = percent(first.probability);
  if (dissent) verdict += ` by ${first.name}; ${dissent.name} says ${dissent.best}, ${percent(dissent.probability)}`;
  else if (answers.length > 1) verdict += `, ${answers.map((answer) => answer.name).join(" and ")} agree`;
  find(".best").textContent = first.best;
  find(".best").classList.toggle("long", first.best.length > 4);
  find(".verdict").textContent = verdict;
  find(".prepared").textContent = `, ${prepared}`;
  document.querySelectorAll(".time").forEach((time, index) => {
    time.textContent = `${answers[index].milliseconds.toFixed(2)} ms per picture`;
  });
  document.querySelectorAll("tbody tr").forEach((row, index) => {
    row.querySelector("th").textContent = classes[index];
    row.classList.toggle("likeliest", classes[index] === first.best);
    row.querySelectorAll("td").forEach((cell, column) => {
      const share = answers[column].shown[index];
      cell.querySelector("i").style.transform = `scaleX(${share})`;
      cell.querySelector(".share").textContent = percent(share);
    });
  });
  if (since !== null) conclude(`${first.best}, ${verdict}`, since);
}

// Announces the answer once a stroke has ended, and measures the time until it is painted.
function conclude(words, since) {
  status.textContent = words;
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => {
    const { duration } = performance.measure("answer", { start: since });
    find(".took").textContent = ` This answer was on the screen after ${Math.round(duration)} ms.`;
  };
  requestAnimationFrame(() => port2.postMessage(null)); // runs after the frame is painted
}

function showPixels(pixels) {
  const image = new ImageData(seen.width, seen.height);
  const plane = seen.width * seen.height;
  const channels = pixels.length / plane;
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixels[(c % channels) * plane + i];
    image.data[4 * i + 3] = 255;
  }
  seen.getContext("2d").putImageData(image, 0, 0);
}

function complain(words) {
  fault.textContent = words;
}

function clear() {
  shown = asked;
  later = showsImage = false;
  chosen = null;
  stopCamera();
  brush?.clearRect(0, 0, paper.width, paper.height);
  seen.getContext("2d").clearRect(0, 0, seen.width, seen.height);
  URL.revokeObjectURL(dropped.src);
  dropped.removeAttribute("src");
  dropped.hidden = true;
  hint.hidden = false;
  for (const selector of [".best", ".verdict", ".prepared", ".took", "[role=alert]", "[role=status]"]) find(selector).textContent = "";
  document.querySelectorAll(".likeliest").forEach((row) => row.classList.remove("likeliest"));
  document.querySelectorAll(".share").forEach((share) => (share.textContent = "–"));
  document.querySelectorAll(".bar i").forEach((bar) => (bar.style.transform = ""));
}

// Pen ---------------------------------------------------------------------------------------------

function draw(from, to) {
  if (showsImage) clear();
  hint.hidden = true;
  brush.beginPath();
  brush.moveTo(...from);
  brush.lineTo(...to);
  brush.stroke();
}

function drawByPointer() {
  let last = null;
  const place = (event) => {
    const box = paper.getBoundingClientRect();
    const scale = paper.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };
  paper.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button !== 0) return;
    paper.setPointerCapture(event.pointerId);
    last = place(event);
    draw(last, last);
    askDrawing();
  });
  paper.addEventListener("pointermove", (event) => {
    if (!last || !event.isPrimary) return;
    for (const between of [...event.getCoalescedEvents(), event]) {
      const here = place(between);
      draw(last, here);
      last = here;
    }
    askDrawing();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    paper.addEventListener(end, (event) => {
      if (!last || !event.isPrimary) return;
      last = null;
      askDrawing(event.timeStamp);
    });
  }
}

function drawByKeys() {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  let at = [paper.width / 2, paper.height / 4];
  let drew = false;
  const move = (to) => {
    at = to;
    pen.style.left = `${(100 * at[0]) / paper.width}%`;
    pen.style.top = `${(100 * at[1]) / paper.height}%`;
  };
  move(at);
  paper.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const to = at.map((here, axis) => Math.min(Math.max(here + 16 * step[axis], 16), paper.width - 16));
    if (event.shiftKey) {
      draw(at, to);
      askDrawing();
      drew = true;
    }
    move(to);
  });
  paper.addEventListener("keyup", (event) => {
    if (event.key !== "Shift" || !drew) return;
    drew = false;
    askDrawing(event.timeStamp);
  });
}

// Camera ------------------------------------------------------------------------------------------

async function startCamera() {
  clear();
  let mine;
  try {
    mine = await navigator.mediaDevices.getUserMedia({ video: true });
  } catch (error) {
    complain(`The camera cannot be used: ${error.message}`);
    return;
  }
  clear();
  showsImage = true;
  stream = video.srcObject = mine;
  video.hidden = false;
  hint.hidden = true;
  camera.setAttribute("aria-pressed", true);
  if (find(".trace")) find(".trace").checked = true;
  await video.play();
  const frame = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  while (stream === mine) {
    frame.getContext("2d").drawImage(video, 0, 0);
    await ask("/image?name=the+camera%27s+picture", await frame.convertToBlob(), null); // PNG
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = video.srcObject = null;
  video.hidden = true;
  camera.setAttribute("aria-pressed", false);
}

// Events and buttons ---------------------------------------------------------------------------------

if (paper) {
  drawByPointer();
  drawByKeys();
}
find(".clear").addEventListener("click", clear);
camera.hidden = !navigator.mediaDevices;
camera.addEventListener("click", () => (stream ? clear() : startCamera()));
find(".trace")?.addEventListener("change", () => chosen && askImage([chosen]));
find("input[type=file]").addEventListener("change", ({ target }) => {
  askImage(target.files);
  target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("keydown", ({ key }) => key === "Escape" && clear());
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    find(".stage").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") askImage(event.dataTransfer.files);
  });
}
