"use strict";

// The study's numbers as the page holds them, and how they are written.

const DIGITS = 7; // of a float32
const SHOWN_DIGITS = 4;
const MOST_SHOWN_DECIMALS = 8;

/** The bytes that a text in base 64 holds. */
function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
}

/** Numbers as lmshape.pages.explore lays them out; they are little-endian, as is every machine with a browser. */
function parseChunk(text) {
  const { value, low, high, flags, absent } = JSON.parse(text);
  const [values, lows, highs] = [value, low, high].map((column) => new Float32Array(bytesOf(column)));
  return { values, lows, highs, flags, absent: new Set(absent) };
}

/** One number of a chunk: NaN where there is no value, or no end of an interval; its flag as text. */
function numberAt(chunk, at, flags) {
  const [value, low, high] = [chunk.values[at], chunk.lows[at], chunk.highs[at]];
  return { value, low, high, decimals: shownDecimals(value, low, high), flag: flags[chunk.flags[at] ?? 0], absent: chunk.absent.has(at) };
}

/** The decimals with which the largest of a value and its interval has four digits; negative for large ones. */
function shownDecimals(...numbers) {
  const largest = Math.max(0, ...numbers.map(Math.abs).filter((one) => !Number.isNaN(one)));
  const [, exponent] = largest.toExponential().split("e");
  return largest > 0 ? SHOWN_DIGITS - 1 - exponent : 0;
}

/** A value with the decimals that are shown, and all of a whole part up to a million. */
function written(value, shown) {
  if (Number.isNaN(value)) return "–";
  const isFar = shown < -2 || shown > MOST_SHOWN_DECIMALS;
  const text = isFar ? inPowersOfTen(value, shown) : value.toFixed(Math.max(shown, 0));
  return (Number(text) === 0 ? text.replace("-", "") : text).replaceAll("-", "−");
}

/** A very large or small value: 1.235e+6, with no digit beyond the last decimal that is shown. */
function inPowersOfTen(value, shown) {
  const units = Math.round(value * 10 ** shown);
  if (units === 0) return "0";
  return (units / 10 ** shown).toExponential(Math.floor(Math.log10(Math.abs(units))));
}

/** A number with its interval in brackets. */
function writtenWithInterval(number) {
  const [value, low, high] = [number.value, number.low, number.high].map((one) => written(one, number.decimals));
  return Number.isNaN(number.low) ? value : `${value} [${low}, ${high}]`;
}

/** All digits, as programs read them; empty for NaN. */
function exact(value) {
  return Number.isNaN(value) ? "" : String(Number(value.toPrecision(DIGITS)));
}
