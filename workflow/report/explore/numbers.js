"use strict";

// Numbers as lmshape.explore.numbers packs them, and how they are written.

const HIDDEN_DIGITS = 3; // kept, but not shown
const MOST_SHOWN_DECIMALS = 8;
const WITH_INTERVAL = 0, WITHOUT_INTERVAL = 1;
const PLANES = { decimals: 0, there: 1, flag: 2, value: 4, below: 8, longer: 12 };

/** The bytes that a text in base 64 holds, decompressed. */
async function unpack(text) {
  const letters = atob(text);
  const packed = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i += 1) packed[i] = letters.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** A whole number of several bytes, each in a plane of its own; the first plane is the least significant. */
function wholeAt(chunk, plane, size, at) {
  let number = 0;
  for (let k = 0; k < size; k += 1) number |= chunk.bytes[(plane + k) * chunk.count + at] << (8 * k);
  return number; // of 4 bytes, signed: the shift by 24 sees to it
}

/** One number of a chunk: NaN where there is no value, or no end of an interval; its flag as text. */
function numberAt(chunk, at, flags) {
  const there = chunk.bytes[PLANES.there * chunk.count + at];
  const decimals = (chunk.bytes[PLANES.decimals * chunk.count + at] << 24) >> 24;
  const number = { value: NaN, low: NaN, high: NaN, decimals, flag: flags[wholeAt(chunk, PLANES.flag, 2, at)] };
  if (there > WITHOUT_INTERVAL) return { ...number, absent: there > 2 };
  const value = wholeAt(chunk, PLANES.value, 4, at);
  number.value = scaled(value, decimals);
  if (there === WITH_INTERVAL) {
    const below = wholeAt(chunk, PLANES.below, 4, at);
    number.low = scaled(value - below, decimals);
    number.high = scaled(value + below + wholeAt(chunk, PLANES.longer, 4, at), decimals);
  }
  return number;
}

/** A whole number over a power of ten; powers up to 22 are exact, and so is then the number. */
function scaled(whole, decimals) {
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
  return decimals > 0 ? String(Number(value.toFixed(Math.min(decimals, 100)))) : String(value);
}
