"use strict";

// The study's numbers as the page holds them, and how they are written.

const HIDDEN_DIGITS = 3; // kept, but not shown
const MOST_SHOWN_DECIMALS = 8;
const NO_NUMBER = -(2 ** 31);

/** The bytes that a text in base 64 holds. */
function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
}

/** Numbers as lmshape.pages.explore lays them out; they are little-endian, as is every machine with a browser. */
function parseChunk(text) {
  const { decimals, value, low, high, flags, absent } = JSON.parse(text);
  const [values, lows, highs] = [value, low, high].map((column) => new Int32Array(bytesOf(column)));
  return { decimals: new Int8Array(bytesOf(decimals)), values, lows, highs, flags, absent: new Set(absent) };
}

/** One number of a chunk: NaN where there is no value, or no end of an interval; its flag as text. */
function numberAt(chunk, at, flags) {
  const decimals = chunk.decimals[at];
  const [value, low, high] = [chunk.values, chunk.lows, chunk.highs].map((column) => scaled(column[at], decimals));
  return { value, low, high, decimals, flag: flags[chunk.flags[at] ?? 0], absent: chunk.absent.has(at) };
}

/** A whole number over a power of ten; powers up to 22 are exact, and so is then the number. */
function scaled(whole, decimals) {
  if (whole === NO_NUMBER) return NaN;
  return decimals >= 0 ? whole / 10 ** decimals : whole * 10 ** -decimals;
}

/** A value with the digits that are shown: four of the largest of value and interval, all of a whole part. */
function written(value, decimals) {
  if (Number.isNaN(value)) return "–";
  const shown = decimals - HIDDEN_DIGITS;
  const isFar = decimals < 1 || shown > MOST_SHOWN_DECIMALS;
  const text = isFar ? inPowersOfTen(value, shown) : value.toFixed(Math.max(shown, 0));
  return text.replaceAll("-", "−");
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

/** All digits that are kept, as programs read them; empty for NaN. */
function exact(value, decimals) {
  if (Number.isNaN(value)) return "";
  return decimals > 0 ? String(Number(value.toFixed(decimals))) : String(value);
}
