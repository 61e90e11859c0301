"use strict";
// Answers in place of the demo's server: onnxruntime-web computes, here. Pictures become pixels as
// data_loader/images.py, serving/drawing.py and Pillow's Resample.c make them.
const network = JSON.parse(document.body.dataset.network);
const ARRAYS = { uint8: Uint8Array, int32: Int32Array, float32: Float32Array };
const [channels, height, width] = network.shape;
const times = [];
let before = Promise.resolve(); // the runtime computes one answer at a time
const starting = start();
starting.catch(() => {}); // it is shown where an answer is wanted

async function start() {
  if (location.protocol === "file:") {
    throw Error("A browser reads these files from a web server only; here: python -m http.server");
  }
  const at = (name) => new URL(name, document.baseURI).href;
  Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: { mjs: at("ort-wasm.js"), wasm: at("ort-wasm.wasm") } });
  const session = await ort.InferenceSession.create(at(encodeURIComponent(network.file)));
  await compute(session, new Uint8Array(channels * height * width)); // the first call is slow
  return session;
}

// As the server answers to the same question: see demo.js.
async function local(path, body) {
  try {
    const session = await starting;
    const [pixels, prepared] = body instanceof Blob ? await prepareImage(body) : prepareDrawing(body);
    const mine = before.then(() => answer(session, pixels, prepared));
    before = mine.catch(() => {});
    return await mine;
  } catch (error) {
    return { error: error.message };
  }
}

async function answer(session, pixels, prepared) {
  const began = performance.now();
  const logits = await compute(session, pixels);
  if (times.push(performance.now() - began) > network.recent) times.shift();
  const found = (network.kind === "sigmoid" ? sigmoid : softmax)([...logits].map(Number));
  if (!found.every(Number.isFinite)) throw Error(`${network.file} answers NaN: the network diverged in training`);
  const best = found.indexOf(Math.max(...found));
  let order = found.map((_, index) => index);
  if (order.length > network.rows) order = order.sort((a, b) => found[b] - found[a]).slice(0, network.rows);
  const milliseconds = median(times);
  return {
    pixels,
    prepared,
    classes: order.map((index) => network.classes[index]),
    answers: [{ name: "ONNX", milliseconds, best: network.classes[best], probability: found[best], shown: order.map((index) => found[index]) }],
  };
}

// The logits of a picture, of channels x height x width bytes.
async function compute(session, pixels) {
  const one = ARRAYS[network.dtype].from(network.normalize ? normalize(pixels, network.normalize) : pixels);
  const batch = new ARRAYS[network.dtype](network.batch * one.length);
  for (let i = 0; i < network.batch; i++) batch.set(one, i * one.length);
  const input = new ort.Tensor(network.dtype, batch, [network.batch, channels, height, width]);
  const { [network.output]: output } = await session.run({ [network.input]: input }, [network.output]);
  return output.data.slice(0, network.classes.length);
}

function normalize(pixels, { mean, std }) {
  const each = (value) => [value].flat().map(Math.fround);
  const [means, stds] = [each(mean), each(std)];
  return Float32Array.from(pixels, (pixel, i) => {
    const channel = Math.floor(i / (height * width));
    const centred = Math.fround(Math.fround(pixel / 255) - means[channel % means.length]);
    return centred / stds[channel % stds.length];
  });
}

function softmax(logits) {
  const most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

const sigmoid = (logits) => logits.map((logit) => 0.5 * (1 + Math.tanh(logit / 2)));

// Pictures ----------------------------------------------------------------------------------------

async function prepareImage(file) {
  const bitmap = await decode(file);
  const drawn = find(".trace")?.checked;
  const scale = network.side / Math.max(bitmap.width, bitmap.height);
  const reduced = [bitmap.width, bitmap.height].map((one) => Math.max(1, roundHalfEven(scale * one)));
  const { planes, size, exact } = read(bitmap, file.kind, drawn ? 1 : channels, drawn ? reduced : [width, height]);
  const decoded = exact ? "" : "; as this browser decodes it, which predict.py may do a little differently";
  if (bitmap.width === width && bitmap.height === height) return [join(planes), `as it is in the file${decoded}`];
  if (!drawn) return [join(planes.map((plane) => resize(plane, size, [width, height]))), `resized from ${bitmap.width} × ${bitmap.height}${decoded}`];
  const grey = resize(planes[0], size, reduced);
  return [fit(trace(grey, reduced), reduced), `what stands out from its edge, ${network.likeMnist}${decoded}`];
}

// The picture in a file, as a bitmap. Of a file that is not `exact` the pixels depend on the
// decoder: JPEG and WebP, and whatever has colours of its own (a profile, a gamma).
async function decode(file) {
  const name = file.name ?? "the picture";
  const head = new Uint8Array(await file.slice(0, 2 ** 18).arrayBuffer());
  const text = Array.from(head, (byte) => String.fromCharCode(byte)).join("");
  const isPng = text.startsWith("\x89PNG");
  if (isPng && head[24] === 16 && network.valueRange) {
    throw Error(`${name}: has 16 bits per channel, which a browser does not show; use predict.py`);
  }
  if (text.startsWith("VP8X", 12) && head[20] & 8) {
    throw Error(`${name}: a WebP picture with EXIF data, which browsers do not turn as it says; use predict.py`);
  }
  const gamma = isPng && !text.includes("sRGB") ? text.indexOf("gAMA") : -1;
  const value = gamma < 0 ? 1 / 2.2 : new DataView(head.buffer).getUint32(gamma + 4) / 1e5;
  const hasColours = /ICC_PROFILE\0|iCCP|ICCP/.test(text) || Math.abs(value * 2.2 - 1) > 0.05;
  file.kind = { isJpeg: text.startsWith("\xff\xd8\xff"), exact: !hasColours && (isPng || /^(GIF8|BM)/.test(text)) };
  const options = { colorSpaceConversion: hasColours ? "default" : "none", premultiplyAlpha: "none" };
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, options);
  } catch {
    throw Error(`${name}: cannot be read as a picture by this browser`);
  }
  const most = file.kind.isJpeg ? network.maxPixelsJpeg : network.maxPixels;
  if (bitmap.width * bitmap.height > most) {
    throw Error(`${name}: too large (${bitmap.width} × ${bitmap.height}); expected at most ${most.toLocaleString("en")} pixels`);
  }
  return bitmap;
}

// The bitmap's colours over white, as one plane (grey) or three. Pillow decodes a JPEG that is much
// larger than wanted at a half, a quarter or an eighth.
function read(bitmap, kind, count, wanted) {
  const room = Math.min(Math.floor(bitmap.width / wanted[0] / 2), Math.floor(bitmap.height / wanted[1] / 2));
  const part = kind.isJpeg ? [8, 4, 2, 1].find((one) => room >= one) ?? 1 : 1;
  const size = [Math.ceil(bitmap.width / part), Math.ceil(bitmap.height / part)];
  const context = new OffscreenCanvas(...size).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, ...size);
  const { data } = context.getImageData(0, 0, ...size);
  const planes = Array.from({ length: count }, () => new Uint8Array(size[0] * size[1]));
  let { exact } = kind;
  for (let i = 0, from = 0; from < data.length; i++, from += 4) {
    const alpha = data[from + 3];
    const [r, g, b] = [0, 1, 2].map((one) => overWhite(data[from + one], alpha));
    if (alpha % 255 && (data[from] || data[from + 1] || data[from + 2])) exact = false; // a canvas rounds it
    if (count === 1) planes[0][i] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
    else [planes[0][i], planes[1][i], planes[2][i]] = [r, g, b];
  }
  return { planes, size, exact };
}

function overWhite(value, alpha) {
  const sum = 255 * (255 - alpha) + value * alpha + 128;
  return ((sum >> 8) + sum) >> 8;
}

// Resampling.BILINEAR of Pillow, to the bit: along rows and columns, in whole numbers. It begins with
// the columns where that leaves much less to do.
function resize(plane, [columns, rows], [toColumns, toRows]) {
  if (rows > toRows && rows - toRows > 2 * (columns - toColumns)) {
    const low = resample(plane, rows, toRows, columns, 1, columns, 1, columns);
    return resample(low, columns, toColumns, toRows, columns, 1, toColumns, 1);
  }
  const narrow = resample(plane, columns, toColumns, rows, columns, 1, toColumns, 1);
  return resample(narrow, rows, toRows, toColumns, 1, toColumns, 1, toColumns);
}

// Resamples `lines` lines from `length` values to `to`; steps between lines, and along a line.
function resample(source, length, to, lines, line, step, toLine, toStep) {
  const BITS = 22;
  const scale = length / to;
  const support = Math.max(scale, 1);
  const result = new Uint8Array(to * lines);
  for (let out = 0; out < to; out++) {
    const center = (out + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const end = Math.min(Math.trunc(center + support + 0.5), length);
    const weights = [];
    for (let at = first; at < end; at++) {
      weights.push(Math.max(1 - Math.abs((at - center + 0.5) * (1 / support)), 0));
    }
    const sum = weights.reduce((a, b) => a + b, 0);
    const whole = weights.map((weight) => Math.trunc(0.5 + (weight / sum) * 2 ** BITS));
    for (let index = 0; index < lines; index++) {
      let value = 2 ** (BITS - 1);
      for (let i = 0; i < whole.length; i++) value += source[index * line + (first + i) * step] * whole[i];
      result[index * toLine + out * toStep] = Math.min(value / 2 ** BITS, 255);
    }
  }
  return result;
}

// Drawings ----------------------------------------------------------------------------------------

function prepareDrawing(ink) {
  const { side } = network;
  return [fit(ink, [side, side]), network.likeMnist];
}

// As drawing.fit does: into a box of 20/28 of the side, the centre of mass in the middle.
function fit(ink, [columns, rows]) {
  const [xs, ys] = [[], []];
  ink.forEach((value, i) => value && (xs.push(i % columns), ys.push(Math.floor(i / columns))));
  if (!xs.length) throw Error("there is nothing in the picture; expected a drawing, light or dark");
  const range = (places) => places.reduce(([least, most], one) => [Math.min(least, one), Math.max(most, one)], [Infinity, -1]);
  const [[left, right], [top, bottom]] = [range(xs), range(ys)];
  const [wide, high] = [right - left + 1, bottom - top + 1];
  const drawn = new Uint8Array(wide * high);
  for (let y = 0; y < high; y++) drawn.set(ink.subarray((top + y) * columns + left, (top + y) * columns + right + 1), y * wide);
  const scale = (network.box * width) / Math.max(wide, high);
  const [w, h] = [wide, high].map((one) => Math.max(1, roundHalfEven(scale * one)));
  const small = resize(drawn, [wide, high], [w, h]);
  const mass = [new Float64Array(w), new Float64Array(h)];
  small.forEach((value, i) => {
    mass[0][i % w] += value;
    mass[1][Math.floor(i / w)] += value;
  });
  const [x, y] = mass.map(startOf);
  const image = new Uint8Array(width * width);
  for (let row = 0; row < h; row++) image.set(small.subarray(row * w, (row + 1) * w), (y + row) * width + x);
  return image;
}

function startOf(mass) {
  const total = mass.reduce((a, b) => a + b);
  const center = total ? mass.reduce((sum, value, i) => sum + i * value, 0) / total : (mass.length - 1) / 2;
  return Math.min(Math.max(roundHalfEven(width / 2 - center), 0), width - mass.length);
}

// As drawing.trace does: the contrast to the edge.
function trace(grey, [columns, rows]) {
  const edge = [];
  for (let x = 0; x < columns; x++) edge.push(grey[x], grey[(rows - 1) * columns + x]);
  for (let y = 0; y < rows; y++) edge.push(grey[y * columns], grey[(y + 1) * columns - 1]);
  const paper = median(edge);
  const most = grey.reduce((a, value) => Math.max(a, Math.abs(value - paper)), network.weakest);
  const { faintest } = network;
  return grey.map((value) => 255 * Math.min(Math.max((Math.abs(value - paper) / most - faintest) / (1 - faintest), 0), 1));
}

// Small things ------------------------------------------------------------------------------------

function join(planes) {
  const pixels = new Uint8Array(planes.length * height * width);
  planes.forEach((plane, index) => pixels.set(plane, index * height * width));
  return pixels;
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return (low + high) / 2;
}

function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2) ? floor + 1 : floor;
}
