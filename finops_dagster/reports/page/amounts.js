/* Amounts are BigInt: the value times 10^scale. They are added exactly, and rounded only to be shown. */

const MINUS = "\u2212";
const DASH = "\u2013";
let scale = 0;

/** Return a quotient rounded half away from zero; the divisor is positive. */
function divided(amount, divisor) {
  const size = amount < 0n ? -amount : amount;
  const rounded = (size + divisor / 2n) / divisor;
  return amount < 0n ? -rounded : rounded;
}

function cents(amount) {
  return scale >= 2 ? divided(amount, 10n ** BigInt(scale - 2)) : amount * 10n ** BigInt(2 - scale);
}

function grouped(digits) {
  return digits.replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Return an amount to the cent: "12,345.67", with a true minus. */
function money(amount) {
  const value = cents(amount);
  const digits = String(value < 0n ? -value : value).padStart(3, "0");
  return `${value < 0n ? MINUS : ""}${grouped(digits.slice(0, -2))}.${digits.slice(-2)}`;
}

/** Return a change to the cent, with its sign. */
function signed(amount) {
  return cents(amount) > 0n ? `+${money(amount)}` : money(amount);
}

function absolute(amount) {
  return amount < 0n ? -amount : amount;
}

/** Return a share or a change as tenths of a percent, or null where the base is not positive. */
function perMille(part, base) {
  return base > 0n ? Number(divided(part * 1000n, base)) : null;
}

function percent(tenths) {
  return tenths === null ? DASH : `${(Math.abs(tenths) / 10).toFixed(1)} %`;
}

/** Return how an amount changed, in a table: a word where there is no base, else a percentage. */
function change(after, before) {
  if (before === 0n) return after === 0n ? DASH : "new";
  if (after === 0n) return "gone";
  const tenths = perMille(after - before, before);
  if (tenths === null || after < 0n) return DASH;
  if (tenths > 9999) return "> +999 %";
  return `${tenths > 0 ? "+" : tenths < 0 ? MINUS : ""}${percent(tenths)}`;
}

/** Return the amount as a double, good enough to draw. */
function drawn(amount) {
  return Number(cents(amount)) / 100;
}

/** Return the unit that fits amounts. */
const unitFor = (amounts) => unitOf(Math.max(0, ...amounts.map((amount) => Math.abs(drawn(amount)))));

/** Return the unit of a chart whose largest value is given, and how it writes values. */
function unitOf(largest) {
  const [size, word] = [
    [1e9, "billion "],
    [1e6, "million "],
    [1e4, "thousand "],
    [1, ""],
  ].find(([least]) => largest >= least) ?? [1, ""];
  const divisor = size === 1e4 ? 1e3 : size;
  const places = divisor === 1 && largest >= 100 ? 0 : divisor === 1 ? 2 : 1;
  const text = (value) => {
    const shown = grouped(
      Math.abs(value / divisor)
        .toFixed(places)
        .split(".")[0],
    );
    const rest = places
      ? `.${
          Math.abs(value / divisor)
            .toFixed(places)
            .split(".")[1]
        }`
      : "";
    const isZero = Number(Math.abs(value / divisor).toFixed(places)) === 0;
    return `${value < 0 && !isZero ? MINUS : ""}${shown}${rest}`;
  };
  const ticks = (values) => {
    const step = values.length > 1 ? (values[1] - values[0]) / divisor : 1;
    const form = d3.format(`,.${d3.precisionFixed(step)}f`);
    return (value) => `${value < 0 ? MINUS : ""}${form(Math.abs(value / divisor))}`;
  };
  return { word, text, ticks };
}
